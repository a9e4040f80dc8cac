// The input decides what a well-formed HDF5 file holds: name, element type, rank, dimensions, chunks, fill value, ids,
// and whether bytes of the ids are damaged afterwards. What is accepted is a full table of ids inside the vocabulary.
#include "io/hdf5_handle.h"
#include "io/token_file.h"
#include "tests/fuzz/fuzz_target.h"

#include <array>
#include <cstring>
#include <fstream>
#include <iterator>

namespace {

using namespace espalier;

hid_t element_type(std::uint8_t choice) {
    const std::array<hid_t, 16> types = {H5T_STD_I32LE, H5T_STD_I64LE,   H5T_STD_U16LE,  H5T_STD_U32LE,
                                         H5T_STD_U64LE, H5T_STD_I8LE,    H5T_STD_U8BE,   H5T_STD_I16BE,
                                         H5T_STD_I64BE, H5T_IEEE_F32LE,  H5T_IEEE_F64BE, H5T_C_S1,
                                         H5T_STD_B32LE, H5T_STD_REF_OBJ, H5T_STD_I32BE,  H5T_NATIVE_OPAQUE};
    return types[choice % types.size()];
}

/// Mostly small; sometimes any number, of which nothing is stored (chunks are allocated when they are written).
hsize_t dimension(Choices& choices) {
    const std::uint8_t kind = choices.byte();
    return kind < 240 ? kind % 9 : choices.word() >> (kind % 48);
}

/// Writes the file; false when the library refuses these choices.
bool make_file(const std::string& path, Choices& choices) {
    const auto lock = lock_hdf5();
    const Hdf5Handle file(H5Fcreate(path.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT), H5Fclose);
    if (file.id() < 0) return false;
    const std::uint8_t shape_choice = choices.byte(), name_choice = choices.byte();
    const char* const name = name_choice < 240 ? "/input_ids" : name_choice < 248 ? "/ids" : "/input_ids/weight";
    std::array<hsize_t, 4> shape{}, chunk{};
    const int rank = shape_choice % 5;
    std::size_t elements = 1;
    bool large = false;
    for (int d = 0; d < rank; ++d) {
        shape[static_cast<std::size_t>(d)] = dimension(choices);
        chunk[static_cast<std::size_t>(d)] = 1 + choices.byte() % 4;
        large = large || shape[static_cast<std::size_t>(d)] > 8;
        elements *= large ? 1 : static_cast<std::size_t>(shape[static_cast<std::size_t>(d)]);
    }
    const Hdf5Handle space(rank == 0 ? H5Screate(shape_choice < 128 ? H5S_SCALAR : H5S_NULL)
                                     : H5Screate_simple(rank, shape.data(), nullptr),
                           H5Sclose);
    const Hdf5Handle type(H5Tcopy(element_type(choices.byte())), H5Tclose);
    const Hdf5Handle creation(H5Pcreate(H5P_DATASET_CREATE), H5Pclose), links(H5Pcreate(H5P_LINK_CREATE), H5Pclose);
    H5Pset_create_intermediate_group(links.id(), 1);
    const std::uint8_t filters = choices.byte();
    if (rank > 0 && (large || (filters & 1) != 0)) {
        H5Pset_chunk(creation.id(), rank, chunk.data());
        if ((filters & 2) != 0) H5Pset_fletcher32(creation.id());
        if ((filters & 4) != 0) H5Pset_deflate(creation.id(), 1);
    }
    const std::int64_t fill = static_cast<std::int64_t>(choices.word());
    if ((filters & 8) != 0 && H5Tget_class(type.id()) == H5T_INTEGER) {
        H5Pset_fill_value(creation.id(), H5T_NATIVE_INT64, &fill);
    }
    const Hdf5Handle dataset(H5Dcreate2(file.id(), name, type.id(), space.id(), links.id(), creation.id(), H5P_DEFAULT),
                             H5Dclose);
    if (dataset.id() < 0) return false;
    if (large || elements == 0 || H5Tget_class(type.id()) != H5T_INTEGER) return true;
    std::vector<std::int64_t> ids(elements);
    for (std::int64_t& id : ids) {
        const std::uint8_t kind = choices.byte();
        id = kind < 250 ? kind * 4 : static_cast<std::int64_t>(choices.word());
    }
    return H5Dwrite(dataset.id(), H5T_NATIVE_INT64, H5S_ALL, H5S_ALL, H5P_DEFAULT, ids.data()) >= 0;
}

/// Changes bytes behind the structure, in the second half of the file, where the ids and their checksums are.
void damage_ids(const std::string& path, Choices& choices) {
    std::fstream file(path, std::ios::binary | std::ios::in | std::ios::out);
    file.seekg(0, std::ios::end);
    const auto size = static_cast<std::uint64_t>(file.tellg());
    constexpr std::uint64_t structure = 2048;  // superblock, root group and object headers of so small a file
    while (!choices.empty() && size > structure) {
        file.seekp(static_cast<std::streamoff>(structure + choices.word() % (size - structure)));
        file.put(static_cast<char>(choices.byte()));
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    static const ScratchFolder folder;
    constexpr std::size_t vocabulary = 1000;
    const std::string path = (folder.path() / "tokens.h5").string();
    Choices choices(data, size);
    if (!make_file(path, choices)) return 0;
    if (std::filesystem::file_size(path) < 8) return 0;
    damage_ids(path, choices);
    only_input_errors([&] {
        const TokenTable table = read_token_file(path, vocabulary, TokenPurpose::calibration);
        demand(table.rows > 0 && table.columns > 0, "at least one token");
        demand(table.ids.size() == table.rows * table.columns, "a full table");
        for (const std::int32_t id : table.ids) {
            demand(id >= 0 && static_cast<std::size_t>(id) < vocabulary, "ids inside the vocabulary");
        }
    });
    return 0;
}
