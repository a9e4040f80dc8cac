// The input decides what the datasets of a well-formed request file hold. What is accepted fits together: every request
// has a context and a continuation of ids inside the vocabulary, every item a right choice and a task.
#include "io/request_file.h"

#include "io/hdf5_handle.h"
#include "tests/fuzz/fuzz_target.h"

#include <array>
#include <vector>

namespace {

using namespace espalier;

constexpr std::array<const char*, 9> datasets = {"/context_ids",        "/context_begin", "/continuation_ids",
                                                 "/continuation_begin", "/characters",    "/bytes",
                                                 "/item_begin",         "/gold",          "/task"};

/// Datasets of up to 15 numbers, mostly small ones; one in 256 is left out. What is left of the input are the names.
void make_file(const std::string& path, Choices& choices) {
    const auto lock = lock_hdf5();
    const Hdf5Handle file(H5Fcreate(path.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT), H5Fclose);
    for (const char* const name : datasets) {
        const std::uint8_t count = choices.byte();
        if (count == 255) continue;
        std::vector<std::int64_t> values(count % 16);
        for (std::int64_t& value : values) {
            const std::uint8_t kind = choices.byte();
            value = kind < 250 ? kind : static_cast<std::int64_t>(choices.word());
        }
        const hsize_t size = values.size();
        const Hdf5Handle space(H5Screate_simple(1, &size, nullptr), H5Sclose);
        const Hdf5Handle dataset(
            H5Dcreate2(file.id(), name, H5T_STD_I64LE, space.id(), H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT), H5Dclose);
        if (size > 0) H5Dwrite(dataset.id(), H5T_NATIVE_INT64, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data());
    }
    std::string names;
    while (!choices.empty() && names.size() < 200) names += static_cast<char>(choices.byte());
    if (names.empty()) names = R"(["a"])";
    const Hdf5Handle scalar(H5Screate(H5S_SCALAR), H5Sclose), text(H5Tcopy(H5T_C_S1), H5Tclose);
    H5Tset_size(text.id(), names.size());
    const Hdf5Handle attribute(H5Acreate2(file.id(), "tasks", text.id(), scalar.id(), H5P_DEFAULT, H5P_DEFAULT),
                               H5Aclose);
    H5Awrite(attribute.id(), text.id(), names.data());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    static const ScratchFolder folder;
    constexpr std::int32_t vocabulary = 200;
    const std::string path = (folder.path() / "requests.h5").string();
    Choices choices(data, size);
    make_file(path, choices);
    only_input_errors([&] {
        const RequestTable table = read_request_file(path, vocabulary);
        demand(table.size() > 0, "at least one request");
        for (std::size_t r = 0; r < table.size(); ++r) {
            for (const auto ids : {table.context(r), table.continuation(r)}) {
                demand(!ids.empty(), "no empty sequence");
                for (const std::int32_t id : ids) demand(id >= 0 && id < vocabulary, "ids inside the vocabulary");
            }
        }
        std::size_t requests = 0;
        for (std::size_t i = 0; i < table.gold.size(); ++i) {
            const IndexRange choices_of_item = table.requests_of_item(i);
            demand(choices_of_item.begin == requests, "items of all requests");
            requests = choices_of_item.end;
            demand(static_cast<std::size_t>(table.gold[i]) < choices_of_item.size(), "a right choice");
            demand(static_cast<std::size_t>(table.task.at(i)) < table.tasks.size(), "a task");
        }
        demand(requests == table.size() && table.bytes.size() == table.size(), "lengths of all requests");
    });
    return 0;
}
