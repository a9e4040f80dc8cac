#include "io/scratch_file.h"

#include "io/file.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

namespace espalier {

namespace {

/// Large enough for calls to cost nothing, small enough for a unit to be shared by threads.
constexpr std::size_t piece = std::size_t{1} << 20;

/// `call(begin, end)` transfers what it can of bytes begin … end-1 of all, and returns how many, or -1 with errno.
/// Returns the first error met, 0 for none; EIO when the file ends before.
template <typename Call>
int in_pieces(std::size_t bytes, const Call& call) {
    std::atomic<int> error = 0;
    const auto pieces = static_cast<std::ptrdiff_t>((bytes + piece - 1) / piece);
#pragma omp parallel for schedule(static)
    for (std::ptrdiff_t i = 0; i < pieces; ++i) {
        std::size_t begin = static_cast<std::size_t>(i) * piece;
        const std::size_t end = std::min(bytes, begin + piece);
        while (begin < end && error == 0) {
            const ssize_t done = call(begin, end);
            if (done < 0 && errno == EINTR) continue;
            if (done <= 0) {
                int none = 0;
                error.compare_exchange_strong(none, done < 0 ? errno : EIO);
            }
            if (done > 0) begin += static_cast<std::size_t>(done);
        }
    }
    return error;
}

}  // namespace

ScratchFile::ScratchFile(std::filesystem::path path) : path_(std::move(path)) {
    constexpr int owner_only = 0600;
    do descriptor_ = ::open(path_.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, owner_only);
    while (descriptor_ < 0 && errno == EINTR);
    if (descriptor_ < 0) throw_system_error(path_.string() + " cannot be created", errno);
    if (::unlink(path_.c_str()) == 0) return;
    const int error = errno;
    ::close(descriptor_);
    throw_system_error(path_.string() + " cannot be removed", error);
}

ScratchFile::~ScratchFile() {
    ::close(descriptor_);
}

void ScratchFile::reserve(std::uint64_t bytes) {
    if (bytes == 0) return;
    const int error = ::posix_fallocate(descriptor_, 0, static_cast<off_t>(bytes));
    if (error == 0) return;
    constexpr std::array unsupported = {EINVAL, EOPNOTSUPP, ENOSYS, ENODEV, enotsupp};
    if (std::ranges::find(unsupported, error) == unsupported.end())
        throw_system_error(
            path_.string() + " (without a name by now) cannot grow to " + std::to_string(bytes) + " bytes", error);
    const std::vector<std::byte> zeros(std::min<std::uint64_t>(bytes, 16 * piece));
    for (std::uint64_t offset = 0; offset < bytes; offset += zeros.size())
        write(offset, std::span(zeros).first(std::min<std::uint64_t>(zeros.size(), bytes - offset)));
}

void ScratchFile::read(std::uint64_t offset, std::span<std::byte> destination) const {
    const int error = in_pieces(destination.size(), [&](std::size_t begin, std::size_t end) {
        return ::pread(descriptor_, destination.data() + begin, end - begin, static_cast<off_t>(offset + begin));
    });
    if (error != 0) throw_system_error(path_.string() + " (without a name by now) cannot be read", error);
}

void ScratchFile::write(std::uint64_t offset, std::span<const std::byte> source) {
    const int error = in_pieces(source.size(), [&](std::size_t begin, std::size_t end) {
        return ::pwrite(descriptor_, source.data() + begin, end - begin, static_cast<off_t>(offset + begin));
    });
    if (error != 0) throw_system_error(path_.string() + " (without a name by now) cannot be written", error);
}

}  // namespace espalier
