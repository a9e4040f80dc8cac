// The lock of a run folder: flock where it works; the file's content names the holder.
#include "io/file.h"
#include "io/run_folder.h"
#include "src/base/error.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <system_error>

namespace espalier {

namespace {

std::string host_name() {
    std::array<char, 256> name{};
    gethostname(name.data(), name.size() - 1);
    return name.data();
}

std::string read_descriptor(int descriptor) {
    std::array<char, 4096> text{};
    const ssize_t length = ::pread(descriptor, text.data(), text.size(), 0);
    return {text.data(), static_cast<std::size_t>(std::max<ssize_t>(0, length))};
}

std::string describe(const Json& holder) {
    const auto field = [&](const char* name) {
        return holder.is_object() && holder.contains(name) && holder[name].is_string() ? holder[name].get<std::string>()
                                                                                       : std::string("unknown");
    };
    return "host " + field("host") + ", process " + field("process") + ", Slurm job " + field("slurm_job");
}

/// The holder runs on this host and its process is gone.
bool is_dead(const Json& holder) {
    if (!holder.is_object() || holder.value("host", "") != host_name()) return false;
    const long process = std::atol(holder.value("process", "0").c_str());
    return process > 0 && ::kill(static_cast<pid_t>(process), 0) != 0 && errno == ESRCH;
}

}  // namespace

RunLock::RunLock(const RunFolder& folder, const std::string& run_id) : path_(folder.path() / "lock") {
    descriptor_ = ::open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (descriptor_ < 0) {
        throw InputError("--output " + folder.path().string() +
                         " cannot be written: " + std::generic_category().message(errno));
    }
    const bool locked = ::flock(descriptor_, LOCK_EX | LOCK_NB) == 0;
    const int lock_error = errno;
    const Json holder = Json::parse(read_descriptor(descriptor_), nullptr, false);
    const bool unsupported = !locked && lock_error != EWOULDBLOCK;
    const bool held = holder.is_object();
    if ((!locked && !unsupported) || (unsupported && held && !is_dead(holder))) {
        ::close(descriptor_);
        throw InputError("another run is writing " + folder.path().string() + " (" + describe(holder) +
                         "); wait for it or choose another --output");
    }
    struct stat opened {
    }, named{};
    if (::fstat(descriptor_, &opened) != 0 || ::stat(path_.c_str(), &named) != 0 || opened.st_ino != named.st_ino) {
        ::close(descriptor_);
        throw InputError("another run was just ending or starting in " + folder.path().string() + "; try again");
    }
    if (held) takeover_ = "took over the lock of a run that ended without removing it (" + describe(holder) + ")";
    const char* const job = std::getenv("SLURM_JOB_ID");
    const Json own = {{"host", host_name()},
                      {"process", std::to_string(::getpid())},
                      {"slurm_job", job == nullptr ? "none" : job},
                      {"run_id", run_id}};
    const std::string text = own.dump() + "\n";
    if (::ftruncate(descriptor_, 0) != 0 || ::pwrite(descriptor_, text.data(), text.size(), 0) < 0) {
        const int error = errno;
        ::close(descriptor_);
        throw_system_error(path_.string() + " cannot be written", error);
    }
}

RunLock::~RunLock() {
    ::unlink(path_.c_str());
    ::close(descriptor_);
}

}  // namespace espalier
