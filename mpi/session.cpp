#include "mpi/session.h"

#include "mpi/mpi_communicator.h"
#include "src/base/stop_request.h"

#include <sched.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <list>

namespace espalier {

namespace {

constexpr int post_tag = 2;

bool environment_has(const char* name) {
    return std::getenv(name) != nullptr;
}

bool started_by_launcher() {
    for (const char* const name : {"OMPI_COMM_WORLD_SIZE", "PMIX_RANK", "PMI_RANK", "PMI_SIZE"}) {
        if (environment_has(name)) return true;
    }
    return false;
}

/// srun without PMIx starts tasks that know nothing of each other: each would prune the whole model.
void refuse_lonely_tasks() {
    const char* const tasks = std::getenv("SLURM_STEP_NUM_TASKS");
    if (tasks != nullptr && std::atoi(tasks) > 1 && environment_has("SLURM_PROCID")) {
        throw InputError(
            std::string("srun started ") + tasks +
            " tasks without MPI between them; use srun --mpi=pmix (srun --mpi=list shows what is there) or "
            "mpirun");
    }
}

/// Ranks of a machine whose sets of allowed cores equal this rank's.
int count_equal_masks(MPI_Comm node, int rank, int size) {
    std::vector<cpu_set_t> masks(static_cast<std::size_t>(size));
    cpu_set_t& mine = masks[static_cast<std::size_t>(rank)];
    CPU_ZERO(&mine);
    sched_getaffinity(0, sizeof mine, &mine);
    check_mpi(MPI_Allgather(MPI_IN_PLACE, 0, MPI_DATATYPE_NULL, masks.data(), static_cast<int>(sizeof(cpu_set_t)),
                            MPI_BYTE, node),
              "MPI_Allgather");
    int equal = 0;
    for (const cpu_set_t& mask : masks) equal += CPU_EQUAL(&mask, &mine) != 0 ? 1 : 0;
    return equal;
}

struct StatusAndLength {
    int status;
    int length;
};

}  // namespace

/// Messages under way to rank 0, and rank 0's own.
struct Session::Posts {
    struct Sent {
        std::string text;
        MPI_Request request = MPI_REQUEST_NULL;
    };
    std::list<Sent> sent;
    std::vector<std::string> own;
};

Session::Session() : exceptions_at_start_(std::uncaught_exceptions()), posts_(std::make_unique<Posts>()) {
    launched_ = started_by_launcher();
    if (!launched_) {
        refuse_lonely_tasks();
        world_ = make_single_communicator();
        return;
    }
    int provided = 0;
    if (MPI_Init_thread(nullptr, nullptr, MPI_THREAD_FUNNELED, &provided) != MPI_SUCCESS) {
        throw ResourceError("MPI could not be started (MPI_Init_thread failed)");
    }
    if (provided < MPI_THREAD_FUNNELED) {
        throw ResourceError("this MPI does not allow threads beside the one that communicates (MPI_THREAD_FUNNELED)");
    }
    world_ = std::make_unique<MpiCommunicator>(MPI_COMM_WORLD, false);
    rank_ = world_->rank();
    size_ = world_->size();
    MPI_Comm node = MPI_COMM_NULL;
    check_mpi(MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, rank_, MPI_INFO_NULL, &node),
              "MPI_Comm_split_type");
    check_mpi(MPI_Comm_rank(node, &local_rank_), "MPI_Comm_rank");
    check_mpi(MPI_Comm_size(node, &local_size_), "MPI_Comm_size");
    ranks_on_my_cores_ = count_equal_masks(node, local_rank_, local_size_);
    check_mpi(MPI_Comm_free(&node), "MPI_Comm_free");
    if (size_ == 1) refuse_lonely_tasks();
}

Session::~Session() {
    if (!launched_ || std::uncaught_exceptions() > exceptions_at_start_) return;
    for (Posts::Sent& post : posts_->sent) MPI_Wait(&post.request, MPI_STATUS_IGNORE);
    world_.reset();
    MPI_Finalize();
}

void Session::check_tasks() const {
    if (environment_has("OMPI_COMM_WORLD_LOCAL_RANK")) return;  // mpirun: its command line says how many
    const char* const of_step = std::getenv("SLURM_STEP_NUM_TASKS");
    const char* const tasks = of_step != nullptr ? of_step : std::getenv("SLURM_NTASKS");
    if (tasks == nullptr || std::atoi(tasks) == size_) return;
    throw InputError("Slurm gives this " + std::string(tasks == of_step ? "step" : "job") + " " + tasks +
                     " task(s), but espalier runs on " + std::to_string(size_) +
                     " rank(s); start it with srun --mpi=pmix (srun --ntasks=" + std::to_string(size_) +
                     " ... for that many ranks on purpose)");
}

std::unique_ptr<Communicator> Session::make_group(std::span<const int> world_ranks) const {
    if (!launched_) return make_single_communicator();
    require(!world_ranks.empty(), "a group of at least one rank");
    MPI_Comm group = MPI_COMM_NULL;
    int position = 0;
    for (std::size_t i = 0; i < world_ranks.size(); ++i) {
        if (world_ranks[i] == rank_) position = static_cast<int>(i);
    }
    check_mpi(MPI_Comm_split(MPI_COMM_WORLD, world_ranks.front(), position, &group), "MPI_Comm_split");
    return std::make_unique<MpiCommunicator>(group, true);
}

void Session::agree(const std::function<void()>& step) const {
    std::string sentence;
    int status = 0;
    try {
        step();
    } catch (...) {
        const Error error = as_error(std::current_exception());
        status = static_cast<int>(error.status());
        sentence = error.what();
    }
    const auto all = world_->all_gather_value(StatusAndLength{status, static_cast<int>(sentence.size())});
    for (std::size_t r = 0; r < all.size(); ++r) {
        if (all[r].status == 0) continue;
        sentence.resize(static_cast<std::size_t>(all[r].length));
        world_->broadcast(std::span<char>(sentence), static_cast<int>(r));
        throw Error(static_cast<ExitStatus>(all[r].status), sentence, static_cast<int>(r));
    }
}

std::string Session::broadcast_text(const std::string& text) const {
    std::array<std::size_t, 1> length = {text.size()};
    world_->broadcast(std::span<std::size_t>(length), 0);
    std::string copy = text;
    copy.resize(length[0]);
    world_->broadcast(std::span<char>(copy), 0);
    return copy;
}

void Session::post_to_root(const std::string& text) {
    if (rank_ == 0) {
        posts_->own.push_back(text);
        return;
    }
    posts_->sent.remove_if([](Posts::Sent& post) {
        int done = 0;
        check_mpi(MPI_Test(&post.request, &done, MPI_STATUS_IGNORE), "MPI_Test");
        return done != 0;
    });
    Posts::Sent& post = posts_->sent.emplace_back();
    post.text = text;
    check_mpi(MPI_Isend(post.text.data(), static_cast<int>(post.text.size()), MPI_CHAR, 0, post_tag, MPI_COMM_WORLD,
                        &post.request),
              "MPI_Isend");
}

std::vector<std::string> Session::collect_posts() {
    std::vector<std::string> texts = std::move(posts_->own);
    posts_->own.clear();
    while (launched_ && rank_ == 0) {
        int found = 0;
        MPI_Status status;
        check_mpi(MPI_Iprobe(MPI_ANY_SOURCE, post_tag, MPI_COMM_WORLD, &found, &status), "MPI_Iprobe");
        if (found == 0) break;
        int length = 0;
        check_mpi(MPI_Get_count(&status, MPI_CHAR, &length), "MPI_Get_count");
        std::string& text = texts.emplace_back(static_cast<std::size_t>(length), '\0');
        check_mpi(
            MPI_Recv(text.data(), length, MPI_CHAR, status.MPI_SOURCE, post_tag, MPI_COMM_WORLD, MPI_STATUS_IGNORE),
            "MPI_Recv");
    }
    return texts;
}

namespace {

/// Waits until the launcher has read what this process has written to its standard error, a pipe, and a little for it
/// to pass it on: Open MPI 5 loses what it has not passed on when a rank ends the job.
void wait_for_launcher() {
    constexpr unsigned step = 5'000, longest = 2'000'000, to_pass_on = 100'000;  // microseconds
    int unread = 0;
    for (unsigned waited = 0; waited < longest; waited += step) {
        if (ioctl(STDERR_FILENO, FIONREAD, &unread) != 0 || unread == 0) break;
        usleep(step);
    }
    usleep(to_pass_on);
}

}  // namespace

void Session::fail(const Error& error) const {
    heed_stop_signals();  // MPI ends a job's other ranks with SIGTERM, also one that is about to speak here
    constexpr unsigned step = 300'000, longest = 3'000'000;  // microseconds
    // What all ranks know one of them says, and ends the others with it. Those speak only if it could not: after a time
    // in which even a machine that is busy with much else lets it.
    constexpr unsigned patience = 4'000'000;
    const int speaker = error.rank().value_or(rank_);
    const unsigned turn = std::min(longest, step * static_cast<unsigned>(rank_));
    usleep(!error.rank() ? turn : speaker == rank_ ? 0U : patience + turn);
    std::fputs(error_line(error, size_ > 1 ? std::optional<int>(speaker) : std::nullopt).c_str(), stderr);
    std::fflush(stderr);
    const int status = static_cast<int>(error.status());
    if (launched_) {
        wait_for_launcher();
        MPI_Abort(MPI_COMM_WORLD, status);
    }
    std::_Exit(status);
}

}  // namespace espalier
