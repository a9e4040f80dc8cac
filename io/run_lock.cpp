// The lock of a run folder: flock where it works; the file's content names the holder.
#include "io/file.h"
#include "io/run_folder.h"
#include "src/base/error.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <ctime>
#include <fstream>
#include <optional>
#include <system_error>
#include <utility>

namespace espalier {

namespace {

std::string host_name() {
    std::array<char, 256> name{};
    gethostname(name.data(), name.size() - 1);
    return name.data();
}

std::string variable(const char* name) {
    const char* const value = std::getenv(name);
    return value == nullptr ? std::string() : std::string(value);
}

/// When a process of this machine was started: the boot, and clock ticks since then; empty when that is not known.
/// Numbers of processes are used again, this is not.
std::string start_of_process(long process) {
    std::string boot, status;
    std::ifstream("/proc/sys/kernel/random/boot_id") >> boot;
    std::ifstream file("/proc/" + std::to_string(process) + "/stat");
    std::getline(file, status);
    // "PID (name) state ...": the name may hold spaces; the start is the 20th field after it.
    std::size_t at = status.rfind(')');
    for (int field = 0; field < 20 && at != std::string::npos; ++field) at = status.find(' ', at + 1);
    if (boot.empty() || at == std::string::npos) return "";
    return boot + " " + status.substr(at + 1, status.find(' ', at + 1) - at - 1);
}

Json this_run(const std::string& run_id) {
    const std::string job = variable("SLURM_JOB_ID");
    return {{"host", host_name()},
            {"process", std::to_string(::getpid())},
            {"process_start", start_of_process(::getpid())},
            {"slurm_job", job.empty() ? "none" : job},
            {"slurm_restarts", variable("SLURM_RESTART_COUNT")},
            {"run_id", run_id}};
}

std::string text_field(const Json& holder, const char* name) {
    return holder.is_object() && holder.contains(name) && holder[name].is_string() ? holder[name].get<std::string>()
                                                                                   : std::string();
}

std::string describe(const Json& holder) {
    const auto field = [&](const char* name) {
        const std::string text = text_field(holder, name);
        return text.empty() ? std::string("unknown") : text;
    };
    return "host " + field("host") + ", process " + field("process") + ", Slurm job " + field("slurm_job");
}

bool ran_on_this_machine_and_ended(const Json& holder) {
    if (text_field(holder, "host") != host_name()) return false;
    const long process = std::atol(text_field(holder, "process").c_str());
    if (process <= 0) return false;
    if (::kill(static_cast<pid_t>(process), 0) != 0 && errno == ESRCH) return true;
    const std::string then = text_field(holder, "process_start"), now = start_of_process(process);
    return !then.empty() && !now.empty() && then != now;
}

/// Slurm starts a job again only when all of its processes have ended.
bool belongs_to_an_earlier_start_of_this_job(const Json& holder) {
    const std::string job = variable("SLURM_JOB_ID");
    return !job.empty() && text_field(holder, "slurm_job") == job &&
           std::atol(text_field(holder, "slurm_restarts").c_str()) < std::atol(variable("SLURM_RESTART_COUNT").c_str());
}

int open_file(const std::filesystem::path& path, int flags) {
    int descriptor = -1;
    do descriptor = ::open(path.c_str(), flags | O_CLOEXEC, 0644);
    while (descriptor < 0 && errno == EINTR);
    return descriptor;
}

std::string read_descriptor(int descriptor) {
    std::array<char, 4096> text{};
    const ssize_t length = ::pread(descriptor, text.data(), text.size(), 0);
    return {text.data(), static_cast<std::size_t>(std::max<ssize_t>(0, length))};
}

/// What the lock says, null when it is torn; nothing when there is none.
std::optional<Json> read_lock(const std::filesystem::path& path) {
    const int descriptor = open_file(path, O_RDONLY);
    if (descriptor < 0) return {};
    const std::string text = read_descriptor(descriptor);
    ::close(descriptor);
    const Json holder = Json::parse_or_null(text);
    return holder.is_object() ? holder : Json();
}

/// The same, but a young file without content is one that another machine, or a slow server, has still to write.
std::optional<Json> read_lock_when_written(const std::filesystem::path& path) {
    constexpr std::time_t time_to_write_it = 20;     // seconds
    constexpr unsigned between_two_looks = 100'000;  // microseconds
    std::optional<Json> holder = read_lock(path);
    struct stat found {};
    while (holder && holder->is_null() && ::stat(path.c_str(), &found) == 0 &&
           std::time(nullptr) - found.st_mtime < time_to_write_it) {
        ::usleep(between_two_looks);
        holder = read_lock(path);
    }
    return holder;
}

/// Over the old content, which must not show behind the new one; not every file system truncates.
void write_over(int descriptor, std::string text, const std::filesystem::path& path) {
    text.resize(std::max(text.size(), read_descriptor(descriptor).size()), ' ');
    if (::pwrite(descriptor, text.data(), text.size(), 0) == static_cast<ssize_t>(text.size())) return;
    throw_system_error(path.string() + " cannot be written", errno);
}

bool has_no_locks(int error) {
    constexpr std::array errors = {ENOLCK, ENOSYS, EOPNOTSUPP, EINVAL, enotsupp};
    return std::find(errors.begin(), errors.end(), error) != errors.end();
}

std::string system_words(int error) {
    return std::generic_category().message(error);
}

[[noreturn]] void refuse_second(const std::filesystem::path& folder, const Json& holder, const std::string& advice) {
    throw InputError("another run is writing " + folder.string() + " (" + describe(holder) + "); " + advice);
}

[[noreturn]] void refuse_for_now(const std::filesystem::path& folder) {
    throw InputError("another run was just ending or starting in " + folder.string() + "; try again");
}

std::string takeover_of(const Json& holder) {
    return "took over the lock of a run that ended without removing it (" + describe(holder) + ")";
}

}  // namespace

RunLock::RunLock(const RunFolder& folder, const std::string& run_id)
    : folder_(folder.path()), path_(folder.path() / "lock") {
    content_ = this_run(run_id).dump() + "\n";
    bool created = true;
    descriptor_ = open_file(path_, O_RDWR | O_CREAT | O_EXCL);
    if (descriptor_ < 0 && errno == EEXIST) {
        created = false;
        descriptor_ = open_file(path_, O_RDWR);
        if (descriptor_ < 0 && errno == ENOENT) refuse_for_now(folder_);
    }
    if (descriptor_ < 0) {
        throw InputError("--output " + folder_.string() + " cannot be written: " + system_words(errno));
    }
    try {
        int result = 0;
        do result = ::flock(descriptor_, LOCK_EX | LOCK_NB);
        while (result != 0 && errno == EINTR);
        const int error = result == 0 ? 0 : errno;
        if (has_no_locks(error))
            hold_by_file(created, error);
        else
            hold_by_flock(error);
    } catch (...) {
        if (descriptor_ >= 0) ::close(descriptor_);
        throw;
    }
}

void RunLock::hold_by_flock(int error) {
    const Json holder = Json::parse_or_null(read_descriptor(descriptor_));
    if (error == EWOULDBLOCK) refuse_second(folder_, holder, "wait for it or choose another --output");
    if (error != 0) throw InputError(path_.string() + " cannot be locked: " + system_words(error));
    struct stat opened {
    }, named{};
    if (::fstat(descriptor_, &opened) != 0 || ::stat(path_.c_str(), &named) != 0 || opened.st_ino != named.st_ino) {
        refuse_for_now(folder_);
    }
    if (holder.is_object()) takeover_ = takeover_of(holder);
    write_over(descriptor_, content_, path_);
}

void RunLock::hold_by_file(bool created, int error) {
    if (!created) {
        const std::optional<Json> holder = read_lock_when_written(path_);
        if (!holder) refuse_for_now(folder_);
        if (!holder->is_null() && !ran_on_this_machine_and_ended(*holder) &&
            !belongs_to_an_earlier_start_of_this_job(*holder)) {
            refuse_second(folder_, *holder,
                          "wait for it, choose another --output, or, when it has ended without removing it, remove " +
                              path_.string() + " (this file system has no locks that would tell)");
        }
        takeover_ = takeover_of(*holder);
        ::close(descriptor_);
        ::unlink(path_.c_str());
        descriptor_ = open_file(path_, O_RDWR | O_CREAT | O_EXCL);
        if (descriptor_ < 0) refuse_for_now(folder_);
    }
    try {
        write_over(descriptor_, content_, path_);
    } catch (const Error&) {
        ::unlink(path_.c_str());
        throw;
    }
    // An open file that is removed leaves a hidden one behind on NFS.
    ::close(std::exchange(descriptor_, -1));
    if (!takeover_.empty()) {
        // Another run may have seen the same stale lock, and have removed ours for it.
        constexpr unsigned time_to_remove_it = 500'000;  // microseconds
        ::usleep(time_to_remove_it);
        if (!is_ours()) refuse_for_now(folder_);
    }
    warning_ = "this file system has no locks (" + system_words(error) + "): the file " + path_.string() +
               " alone keeps a second run out of this folder";
}

bool RunLock::is_ours() const {
    const std::optional<Json> holder = read_lock(path_);
    return holder && *holder == Json::parse(content_);
}

RunLock::~RunLock() {
    if (descriptor_ >= 0) {
        ::unlink(path_.c_str());
        ::close(descriptor_);
    } else if (is_ours()) {
        ::unlink(path_.c_str());
    }
}

}  // namespace espalier
