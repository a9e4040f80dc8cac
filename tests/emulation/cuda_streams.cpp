// The CUDA runtime's functions about streams and events.
#include "tests/emulation/cuda_status.h"
#include "tests/emulation/stream.h"

using namespace espalier::emulation;

extern "C" {

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags) {
    // A blocking stream waits for the default one, which is not emulated.
    if (flags != cudaStreamNonBlocking) return reported(cudaErrorNotSupported);
    *stream = make_stream();
    return cudaSuccess;
}

cudaError_t cudaStreamCreateWithPriority(cudaStream_t* stream, unsigned flags, int /*priority*/) {
    return cudaStreamCreateWithFlags(stream, flags);
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
    if (!stream_exists(stream)) return reported(cudaErrorInvalidResourceHandle);
    destroy_stream(stream);
    return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
    if (!stream_exists(stream)) return reported(cudaErrorInvalidResourceHandle);
    wait_for_stream(stream);
    return cudaSuccess;
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned /*flags*/) {
    if (!stream_exists(stream) || event == nullptr) return reported(cudaErrorInvalidResourceHandle);
    if (event->point != nullptr) wait_for_event(stream, event->point);
    return cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags) {
    if (flags != cudaEventDisableTiming) return reported(cudaErrorNotSupported);
    *event = new CUevent_st;
    return cudaSuccess;
}

cudaError_t cudaEventDestroy(cudaEvent_t event) {
    delete event;
    return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
    if (!stream_exists(stream) || event == nullptr) return reported(cudaErrorInvalidResourceHandle);
    event->point = record_event(stream);
    return cudaSuccess;
}

cudaError_t cudaEventQuery(cudaEvent_t event) {
    if (event == nullptr) return reported(cudaErrorInvalidResourceHandle);
    const bool passed = event->point == nullptr || has_passed(*event->point);
    return passed ? cudaSuccess : reported(cudaErrorNotReady);
}

}  // extern "C"
