#include "io/hdf5_handle.h"

#include "io/hdf5_open.h"
#include "src/base/error.h"

#include <algorithm>
#include <utility>

namespace espalier {

std::unique_lock<std::recursive_mutex> lock_hdf5() {
    static std::recursive_mutex mutex;
    std::unique_lock lock(mutex);
    static const bool without_locks = [] {
        switch_off_hdf5_locks();
        return true;
    }();
    static_cast<void>(without_locks);
    thread_local const bool quiet = [] {
        H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
        return true;
    }();
    static_cast<void>(quiet);
    return lock;
}

Hdf5Handle::Hdf5Handle(Hdf5Handle&& other) noexcept : id_(std::exchange(other.id_, -1)), close_(other.close_) {}

Hdf5Handle::~Hdf5Handle() {
    if (id_ >= 0) close_(id_);
}

Hdf5Handle hdf5_type(DType dtype) {
    if (dtype == DType::u8) return {H5Tcopy(H5T_STD_U8LE), H5Tclose};
    Hdf5Handle type(H5Tcopy(H5T_IEEE_F32LE), H5Tclose);
    herr_t status = 0;
    if (dtype == DType::bf16) {
        status = std::min(
            {H5Tset_fields(type.id(), 15, 7, 8, 0, 7), H5Tset_size(type.id(), 2), H5Tset_ebias(type.id(), 127)});
    } else if (dtype == DType::f16) {
        status = std::min(
            {H5Tset_fields(type.id(), 15, 10, 5, 0, 10), H5Tset_size(type.id(), 2), H5Tset_ebias(type.id(), 15)});
    }
    require(type.id() >= 0 && status >= 0, "HDF5 accepts our element types");
    return type;
}

}  // namespace espalier
