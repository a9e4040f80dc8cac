#include "io/file.h"

#include "src/base/error.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <system_error>
#include <utility>
#include <vector>

namespace espalier {

namespace {

/// Network file systems and FUSE may break off what a disk never does, also under SA_RESTART.
template <typename Call>
int uninterrupted(const Call& call) {
    int result = 0;
    do result = call();
    while (result < 0 && errno == EINTR);
    return result;
}

bool cannot_flush_folders(int error) {
    constexpr std::array errors = {EINVAL, EOPNOTSUPP, ENOSYS, enotsupp, EBADF, ENOTTY};
    return std::find(errors.begin(), errors.end(), error) != errors.end();
}

/// SMB, NFS and FUSE servers hold a file that somebody reads.
bool is_held_by_a_reader(int error) {
    return error == EBUSY || error == ETXTBSY;
}

}  // namespace

void throw_system_error(const std::string& what, int error_number) {
    throw ResourceError(what + ": " + std::generic_category().message(error_number));
}

InputFile::InputFile(const std::filesystem::path& path) : path_(path) {
    descriptor_ = uninterrupted([&] { return ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK); });
    if (descriptor_ < 0) {
        throw InputError(path.string() + " cannot be opened: " + std::generic_category().message(errno));
    }
    struct stat status {};
    if (::fstat(descriptor_, &status) != 0 || !S_ISREG(status.st_mode)) {
        ::close(descriptor_);
        throw InputError(path.string() + " is not a regular file");
    }
    size_ = static_cast<std::uint64_t>(status.st_size);
}

InputFile::InputFile(InputFile&& other) noexcept
    : path_(std::move(other.path_)), descriptor_(std::exchange(other.descriptor_, -1)), size_(other.size_) {}

InputFile& InputFile::operator=(InputFile&& other) noexcept {
    std::swap(path_, other.path_);
    std::swap(descriptor_, other.descriptor_);
    std::swap(size_, other.size_);
    return *this;
}

InputFile::~InputFile() {
    if (descriptor_ >= 0) ::close(descriptor_);
}

void InputFile::read(std::uint64_t offset, std::span<std::byte> destination) const {
    constexpr std::size_t largest_read = std::size_t{1} << 30;
    std::size_t done = 0;
    while (done < destination.size()) {
        const std::size_t wanted = std::min(largest_read, destination.size() - done);
        const ssize_t got = ::pread(descriptor_, destination.data() + done, wanted, static_cast<off_t>(offset + done));
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) throw_system_error(path_.string() + " cannot be read", errno);
        if (got == 0) {
            throw InputError(path_.string() + " ends at byte " + std::to_string(offset + done) + "; " +
                             std::to_string(destination.size() - done) + " more bytes were expected");
        }
        done += static_cast<std::size_t>(got);
    }
}

std::string read_text(const std::filesystem::path& path, std::uint64_t limit) {
    const InputFile file(path);
    if (file.size() > limit) {
        throw InputError(path.string() + " has " + std::to_string(file.size()) + " bytes; at most " +
                         std::to_string(limit) + " are accepted");
    }
    std::string text(static_cast<std::size_t>(file.size()), '\0');
    file.read(0, std::as_writable_bytes(std::span(text)));
    return text;
}

AtomicFile::AtomicFile(const std::filesystem::path& path) : path_(path), temporary_(path.string() + ".tmp") {
    descriptor_ =
        uninterrupted([&] { return ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644); });
    if (descriptor_ < 0) throw_system_error(temporary_.string() + " cannot be created", errno);
}

AtomicFile::~AtomicFile() {
    if (descriptor_ < 0) return;
    ::close(descriptor_);
    ::unlink(temporary_.c_str());
}

void AtomicFile::write(std::span<const std::byte> data) {
    while (!data.empty()) {
        const ssize_t written = ::write(descriptor_, data.data(), data.size());
        if (written < 0 && errno == EINTR) continue;
        if (written < 0) throw_system_error(temporary_.string() + " cannot be written", errno);
        data = data.subspan(static_cast<std::size_t>(written));
    }
}

void AtomicFile::write(std::string_view text) {
    write(std::as_bytes(std::span(text)));
}

void AtomicFile::commit() {
    if (uninterrupted([&] { return ::fsync(descriptor_); }) != 0) {
        throw_system_error(temporary_.string() + " cannot be flushed to disk", errno);
    }
    // After EINTR the descriptor is gone all the same, and fsync has been told all that close could say.
    if (::close(std::exchange(descriptor_, -1)) != 0 && errno != EINTR) {
        throw_system_error(temporary_.string() + " cannot be closed", errno);
    }
    rename_durably(temporary_, path_);
}

void write_text_atomically(const std::filesystem::path& path, std::string_view text) {
    AtomicFile file(path);
    file.write(text);
    file.commit();
}

void sync_file(const std::filesystem::path& path) {
    const int descriptor = uninterrupted([&] { return ::open(path.c_str(), O_RDONLY | O_CLOEXEC); });
    if (descriptor < 0) throw_system_error(path.string() + " cannot be opened for flushing", errno);
    const int failed = uninterrupted([&] { return ::fsync(descriptor); }) != 0 ? errno : 0;
    ::close(descriptor);
    if (failed != 0) throw_system_error(path.string() + " cannot be flushed to disk", failed);
}

void sync_folder(const std::filesystem::path& path) {
    const int descriptor = uninterrupted([&] { return ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC); });
    // A folder may be written without being listed (mode -wx); some servers open none at all.
    if (descriptor < 0 && (errno == EACCES || errno == EISDIR || cannot_flush_folders(errno))) return;
    if (descriptor < 0) throw_system_error(path.string() + " cannot be opened for flushing", errno);
    const int failed = uninterrupted([&] { return ::fsync(descriptor); }) != 0 ? errno : 0;
    ::close(descriptor);
    if (failed != 0 && !cannot_flush_folders(failed)) {
        throw_system_error(path.string() + " cannot be flushed to disk", failed);
    }
}

void rename_durably(const std::filesystem::path& from, const std::filesystem::path& to) {
    constexpr int attempts = 50;
    constexpr unsigned pause = 100'000;  // microseconds
    for (int attempt = 1; ::rename(from.c_str(), to.c_str()) != 0; ++attempt) {
        const int error = errno;
        if (error == EINTR) continue;
        if (is_held_by_a_reader(error) && attempt < attempts) {
            ::usleep(pause);
            continue;
        }
        const std::string what = from.string() + " cannot be renamed to " + to.string();
        if (error == EEXIST && !std::filesystem::is_directory(to)) {
            throw ResourceError(what +
                                ": this file system does not replace a file by renaming another one, by which a run "
                                "saves its progress; choose an --output on another one");
        }
        throw_system_error(what, error);
    }
    sync_folder(to.has_parent_path() ? to.parent_path() : std::filesystem::path("."));
}

void copy_durably(const std::filesystem::path& from, const std::filesystem::path& to) {
    constexpr std::uint64_t piece_bytes = std::uint64_t{4} << 20;
    const InputFile source(from);
    AtomicFile copy(to);
    std::vector<std::byte> piece;
    for (std::uint64_t offset = 0; offset < source.size(); offset += piece_bytes) {
        piece.resize(static_cast<std::size_t>(std::min(piece_bytes, source.size() - offset)));
        source.read(offset, piece);
        copy.write(piece);
    }
    copy.commit();
}

}  // namespace espalier
