#include "src/finetune/state_store.h"

#include "io/scratch_file.h"

#include <algorithm>
#include <string>
#include <utility>

namespace espalier {

namespace {

constexpr std::array device_states = {TrainedState::values, TrainedState::first_moment, TrainedState::second_moment,
                                      TrainedState::gradient};

const char* memory_name(TrainedState state) {
    switch (state) {
        case TrainedState::values:
        case TrainedState::best_values:
            return "trained values";
        case TrainedState::first_moment:
        case TrainedState::second_moment:
            return "optimiser's moments";
        case TrainedState::gradient:
            return "gradients of trained values";
    }
    throw BugError("internal error: a state of trained values");
}

TensorView first_of(const Tensor& buffer, std::size_t count) {
    return {buffer.view().data, DType::f32, 1, count};
}

}  // namespace

/// Bytes that are not on the device; ordered with its operations.
class StateStore::Away {
  public:
    Away() = default;
    Away(const Away&) = delete;
    Away& operator=(const Away&) = delete;
    virtual ~Away() = default;

    virtual void read(std::uint64_t offset, TensorView to) const = 0;
    virtual void write(std::uint64_t offset, TensorView from) = 0;
    virtual void read(std::uint64_t offset, std::span<float> to) const = 0;
    virtual void write(std::uint64_t offset, std::span<const float> from) = 0;
};

class StateStore::HostMemory final : public Away {
  public:
    HostMemory(Device& device, std::uint64_t bytes) : device_(device), memory_(device, bytes) {}

    void read(std::uint64_t offset, TensorView to) const override {
        device_.wait_for_copy(device_.start_copy(memory_.view(DType::f32, offset, 1, to.size()), to));
    }
    void write(std::uint64_t offset, TensorView from) override {
        device_.wait_for_copy(device_.start_copy(from, memory_.view(DType::f32, offset, 1, from.size())));
    }
    void read(std::uint64_t offset, std::span<float> to) const override {
        device_.synchronize();
        const auto bytes = std::as_writable_bytes(to);
        std::ranges::copy(memory_.bytes().subspan(offset, bytes.size()), bytes.begin());
    }
    void write(std::uint64_t offset, std::span<const float> from) override {
        device_.synchronize();
        std::ranges::copy(std::as_bytes(from), memory_.bytes().subspan(offset).begin());
    }

  private:
    Device& device_;
    HostBuffer memory_;
};

/// Of a CPU, whose tensors are host memory and whose operations have ended when they return.
class StateStore::File final : public Away {
  public:
    /// A disk that is too small says so here.
    File(const std::filesystem::path& path, std::uint64_t bytes) : file_(path) { file_.reserve(bytes); }

    void read(std::uint64_t offset, TensorView to) const override { file_.read(offset, {to.data, to.bytes()}); }
    void write(std::uint64_t offset, TensorView from) override { file_.write(offset, {from.data, from.bytes()}); }
    void read(std::uint64_t offset, std::span<float> to) const override {
        file_.read(offset, std::as_writable_bytes(to));
    }
    void write(std::uint64_t offset, std::span<const float> from) override { file_.write(offset, std::as_bytes(from)); }

  private:
    ScratchFile file_;
};

StateStore::StateStore(const TrainingContext& context, std::vector<std::size_t> sizes,
                       const std::vector<TrainedState>& kept)
    : context_(context), sizes_(std::move(sizes)) {
    require(context.states == StatePlace::device || std::ranges::find(kept, TrainedState::values) != kept.end(),
            "values among the states that are kept away from the device");
    for (const TrainedState state : kept) kept_[index_of(state)] = true;
    Device& device = context.device;
    const bool on_device = context.states == StatePlace::device;
    const std::size_t largest = sizes_.empty() ? 0 : *std::ranges::max_element(sizes_);
    for (const TrainedState state : device_states) {
        const bool keeps_there = on_device && keeps(state);
        if (!keeps_there && (keeps(state) || state == TrainedState::gradient))
            buffers_[index_of(state)] = device.make_tensor(DType::f32, 1, largest, memory_name(state));
        for (std::size_t unit = 0; keeps_there && unit < sizes_.size(); ++unit) {
            on_device_[index_of(state)].push_back(device.make_tensor(DType::f32, 1, sizes_[unit], memory_name(state)));
            device.fill_zero(on_device_[index_of(state)].back());
        }
    }
    if (on_device) {
        best_.resize(sizes_.size());
        return;
    }
    offsets_ = {0};
    for (const std::size_t size : sizes_) offsets_.push_back(offsets_.back() + size * kept.size() * sizeof(float));
    if (context.states == StatePlace::host)
        away_ = std::make_unique<HostMemory>(device, bytes_away());
    else
        away_ = std::make_unique<File>(context.state_file, bytes_away());
    if (context.states == StatePlace::file) return;  // zero already
    for (std::size_t unit = 0; unit < sizes_.size(); ++unit) {
        for (const TrainedState state : {TrainedState::first_moment, TrainedState::second_moment}) {
            device.fill_zero(place(unit, state));
            put_back(unit, state);
        }
    }
}

StateStore::~StateStore() = default;

std::uint64_t StateStore::bytes_away() const {
    return offsets_.empty() ? 0 : offsets_.back();
}

bool StateStore::is_on_device(TrainedState state) const {
    return !on_device_[index_of(state)].empty();
}

std::uint64_t StateStore::offset_of(std::size_t unit, TrainedState state) const {
    require(away_ != nullptr && keeps(state), "a state that is kept away from the device");
    const auto before = std::count(kept_.begin(), kept_.begin() + static_cast<std::ptrdiff_t>(index_of(state)), true);
    return offsets_[unit] + static_cast<std::uint64_t>(before) * sizes_[unit] * sizeof(float);
}

TensorView StateStore::place(std::size_t unit, TrainedState state) const {
    return is_on_device(state) ? on_device_[index_of(state)][unit].view()
                               : first_of(buffers_[index_of(state)], sizes_[unit]);
}

TensorView StateStore::take(std::size_t unit, TrainedState state) const {
    const TensorView here = place(unit, state);
    if (!is_on_device(state) && keeps(state)) read(unit, state, 0, here);
    return here;
}

void StateStore::put_back(std::size_t unit, TrainedState state) {
    if (is_on_device(state) || !keeps(state) || sizes_[unit] == 0) return;
    away_->write(offset_of(unit, state), place(unit, state));
}

void StateStore::read(std::size_t unit, TrainedState state, std::size_t first, TensorView to) const {
    require(first + to.size() <= sizes_[unit] && to.dtype == DType::f32, "elements of a state");
    if (to.size() == 0) return;
    if (is_on_device(state)) {
        const TensorView all = on_device_[index_of(state)][unit];
        return context_.device.copy({all.data + first * sizeof(float), DType::f32, to.rows, to.columns}, to);
    }
    away_->read(offset_of(unit, state) + first * sizeof(float), to);
}

void StateStore::keep_best(std::size_t unit) {
    if (away_ == nullptr)
        best_[unit] = on_host(unit, TrainedState::values);
    else if (sizes_[unit] > 0)
        away_->write(offset_of(unit, TrainedState::best_values), take(unit, TrainedState::values));
}

std::vector<float> StateStore::on_host(std::size_t unit, TrainedState state) const {
    if (away_ == nullptr && state == TrainedState::best_values) return best_[unit];
    std::vector<float> values(sizes_[unit]);
    if (values.empty()) return values;
    if (is_on_device(state))
        context_.device.copy_to_host(on_device_[index_of(state)][unit], values.data());
    else
        away_->read(offset_of(unit, state), std::span(values));
    return values;
}

void StateStore::set(std::size_t unit, TrainedState state, std::span<const float> values) {
    require(values.size() == sizes_[unit], "a rank's part of trained values");
    if (away_ == nullptr && state == TrainedState::best_values) {
        best_[unit].assign(values.begin(), values.end());
    } else if (!values.empty()) {
        if (is_on_device(state))
            context_.device.copy_from_host(values.data(), on_device_[index_of(state)][unit]);
        else
            away_->write(offset_of(unit, state), values);
    }
}

}  // namespace espalier
