#include "io/file.h"

#include "src/base/error.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <system_error>
#include <utility>

namespace espalier {

void throw_system_error(const std::string& what, int error_number) {
    throw ResourceError(what + ": " + std::generic_category().message(error_number));
}

InputFile::InputFile(const std::filesystem::path& path) : path_(path) {
    descriptor_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
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
    descriptor_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
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
    if (::fsync(descriptor_) != 0) throw_system_error(temporary_.string() + " cannot be flushed to disk", errno);
    if (::close(std::exchange(descriptor_, -1)) != 0) {
        throw_system_error(temporary_.string() + " cannot be closed", errno);
    }
    rename_durably(temporary_, path_);
}

void write_text_atomically(const std::filesystem::path& path, std::string_view text) {
    AtomicFile file(path);
    file.write(text);
    file.commit();
}

void sync_path(const std::filesystem::path& path) {
    const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (descriptor < 0) throw_system_error(path.string() + " cannot be opened for flushing", errno);
    const int failed = ::fsync(descriptor) != 0 ? errno : 0;
    ::close(descriptor);
    if (failed != 0) throw_system_error(path.string() + " cannot be flushed to disk", failed);
}

void rename_durably(const std::filesystem::path& from, const std::filesystem::path& to) {
    if (::rename(from.c_str(), to.c_str()) != 0) {
        throw_system_error(from.string() + " cannot be renamed to " + to.string(), errno);
    }
    sync_path(to.has_parent_path() ? to.parent_path() : std::filesystem::path("."));
}

}  // namespace espalier
