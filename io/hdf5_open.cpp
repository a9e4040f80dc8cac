#include "io/hdf5_open.h"

#include "io/file.h"
#include "src/base/error.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <span>
#include <string_view>
#include <system_error>
#include <vector>

namespace espalier {

namespace {

/// What HDF5 has noted about the failure, the innermost first.
std::vector<std::string> noted_errors() {
    std::vector<std::string> notes;
    const auto add = [](unsigned /*n*/, const H5E_error2_t* error, void* list) -> herr_t {
        if (error->desc != nullptr) static_cast<std::vector<std::string>*>(list)->emplace_back(error->desc);
        return 0;
    };
    H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, add, &notes);
    return notes;
}

/// The C library's message inside of "... errno = 28, error message = 'No space left on device', ...".
std::string system_words(const std::vector<std::string>& notes) {
    constexpr std::string_view before = "error message = '";
    for (const std::string& note : notes) {
        const std::size_t begin = note.find(before);
        if (begin == std::string::npos) continue;
        const std::size_t end = note.find('\'', begin + before.size());
        if (end != std::string::npos) return note.substr(begin + before.size(), end - begin - before.size());
    }
    return "";
}

bool mention(const std::vector<std::string>& notes, std::string_view words) {
    return std::any_of(notes.begin(), notes.end(),
                       [&](const std::string& note) { return note.find(words) != std::string::npos; });
}

Hdf5Handle file_access_properties() {
    Hdf5Handle properties(H5Pcreate(H5P_FILE_ACCESS), H5Pclose);
    // Closing a file while one of its objects is open is an error instead of a delayed close that nobody sees fail.
    H5Pset_fclose_degree(properties.id(), H5F_CLOSE_SEMI);
    H5Pset_file_locking(properties.id(), false, true);
    return properties;
}

bool begins_like_hdf5(const InputFile& file) {
    constexpr std::string_view signature = "\x89HDF\r\n\x1a\n";
    std::string begin(signature.size(), '\0');
    if (file.size() < begin.size()) return false;
    file.read(0, std::as_writable_bytes(std::span(begin)));
    return begin == signature;
}

}  // namespace

void switch_off_hdf5_locks() {
    constexpr const char* name = "HDF5_USE_FILE_LOCKING";
    // Only what is there is replaced: that moves no other variable, which another thread might be reading.
    if (std::getenv(name) != nullptr) setenv(name, "FALSE", 1);
}

std::string hdf5_reason() {
    const std::vector<std::string> notes = noted_errors();
    const std::string words = system_words(notes);
    if (!words.empty()) return ": " + words;
    return notes.empty() ? std::string() : " (HDF5: " + notes.front() + ")";
}

std::string describe_failed_open(const std::filesystem::path& path) {
    const std::vector<std::string> notes = noted_errors();
    const std::string reason = hdf5_reason();
    try {
        if (!begins_like_hdf5(InputFile(path))) return path.string() + " is not an HDF5 file (its first bytes differ)";
    } catch (const Error& error) {  // absent, no permission, not a file
        return error.what();
    }
    if (mention(notes, "unable to lock file")) return path.string() + " is locked by another program" + reason;
    if (mention(notes, "already open for")) {
        return path.string() + " is marked as being written: wait for the program that writes it, or, when that was " +
               "killed, clear the mark with h5clear -s";
    }
    return path.string() + " is a damaged HDF5 file, or is still being written" + reason;
}

hid_t open_hdf5(const std::filesystem::path& path) {
    static_cast<void>(InputFile(path));  // says why when it is absent, not permitted or no file
    const Hdf5Handle properties = file_access_properties();
    const hid_t file = H5Fopen(path.c_str(), H5F_ACC_RDONLY, properties.id());
    if (file < 0) throw InputError(describe_failed_open(path));
    return file;
}

Hdf5Handle access_through_links() {
    Hdf5Handle properties(H5Pcreate(H5P_DATASET_ACCESS), H5Pclose);
    H5Pset_elink_fapl(properties.id(), file_access_properties().id());
    return properties;
}

hid_t create_hdf5(const std::filesystem::path& path) {
    const Hdf5Handle properties = file_access_properties();
    const Hdf5Handle creation(H5Pcreate(H5P_FILE_CREATE), H5Pclose);
    H5Pset_obj_track_times(creation.id(), false);
    const hid_t file = H5Fcreate(path.c_str(), H5F_ACC_TRUNC, creation.id(), properties.id());
    if (file < 0) throw ResourceError(path.string() + " cannot be created" + hdf5_reason());
    return file;
}

}  // namespace espalier
