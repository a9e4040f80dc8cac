#include "src/finetune/trained_files.h"

#include "io/hdf5_handle.h"
#include "src/base/error.h"
#include "src/base/name_table.h"
#include "src/weights/manifest.h"

#include <algorithm>
#include <array>
#include <string_view>
#include <utility>

namespace espalier {

namespace {

/// Of the states that checkpoints hold.
constexpr NameTable<TrainedState, 4> datasets = {{{{TrainedState::values, "values"},
                                                   {TrainedState::first_moment, "first_moment"},
                                                   {TrainedState::second_moment, "second_moment"},
                                                   {TrainedState::best_values, "best_values"}}}};

std::string dataset_of(TrainedState state) {
    return std::string(datasets.name_of(state));
}

std::span<const std::byte> as_bytes(const std::vector<float>& values) {
    return std::as_bytes(std::span(values));
}

void check_written(const std::filesystem::path& file, const std::vector<FileTensor>& tensors, int threads) {
    const Hdf5Reader reader(file);
    for (const FileTensor& tensor : tensors) {
        if (!reader.holds(hdf5_path(tensor.name), tensor.data, threads))
            throw ResourceError(file.string() + ": " + tensor.name + " cannot be read back as it was written");
    }
}

}  // namespace

TrainedFiles::TrainedFiles(const TrainingContext& context, const RunFolder& run, int host_threads)
    : context_(context), run_(run), host_threads_(host_threads) {}

std::map<std::size_t, TrainedFiles::Vectors> TrainedFiles::bring_to_writers(const TrainedValues& values,
                                                                            IndexRange units,
                                                                            const PartsOf& parts_of) const {
    const std::size_t me = context_.me();
    std::map<std::size_t, Vectors> mine;  // units that this rank writes
    std::map<std::size_t, Vectors> own;   // this rank's parts of all units
    std::vector<Message> sends, receives;
    for (std::size_t unit = units.begin; unit < units.end; ++unit) {
        const PartOffsets parts = values.parts(unit);
        const std::size_t writer = writer_of(unit);
        own[unit] = parts_of(unit);
        for (std::size_t v = 0; v < own[unit].size(); ++v) {
            std::vector<float>& part = own[unit][v];
            if (writer != me) {
                const auto bytes = std::as_writable_bytes(std::span(part));
                if (!bytes.empty()) sends.push_back({static_cast<int>(writer), bytes.data(), bytes.size()});
                continue;
            }
            std::vector<float>& all = mine[unit].emplace_back(values.layout(unit).size());
            std::ranges::copy(part, all.begin() + static_cast<std::ptrdiff_t>(parts[me]));
        }
    }
    for (auto& [unit, vectors] : mine) {
        const PartOffsets parts = values.parts(unit);
        for (std::vector<float>& all : vectors) {
            for (std::size_t rank = 0; rank < context_.ranks(); ++rank) {
                const auto part =
                    std::as_writable_bytes(std::span(all).subspan(parts[rank], parts[rank + 1] - parts[rank]));
                if (rank != me && !part.empty()) receives.push_back({static_cast<int>(rank), part.data(), part.size()});
            }
        }
    }
    context_.control.start_exchange(sends, receives)->finish();
    return mine;
}

UnitRecords TrainedFiles::write_all(const TrainedValues& values, const PartsOf& parts_of, const Write& write) const {
    UnitRecords mine;
    // As many units at a time as there are ranks to write them beside each other.
    for (std::size_t first = 0; first < values.units(); first += context_.ranks()) {
        const IndexRange units = {first, std::min(values.units(), first + context_.ranks())};
        for (const auto& [unit, vectors] : bring_to_writers(values, units, parts_of)) {
            if (const std::optional<FileRecord> record = write(unit, vectors)) mine[unit] = *record;
        }
    }
    return gather(mine);
}

UnitRecords TrainedFiles::gather(const UnitRecords& mine) const {
    struct Entry {
        std::uint64_t unit = 0, bytes = 0;
        std::array<char, 64> file{}, xxh3{};
    };
    const std::vector<std::size_t> counts = context_.control.all_gather_value(mine.size());
    std::vector<std::size_t> offsets = {0};
    for (const std::size_t count : counts) offsets.push_back(offsets.back() + count);
    std::vector<Entry> entries(offsets.back());
    std::size_t next = offsets[context_.me()];
    for (const auto& [unit, record] : mine) {
        Entry& entry = entries[next++];
        entry.unit = unit;
        entry.bytes = record.bytes;
        require(record.file.size() < entry.file.size() && record.xxh3.size() < entry.xxh3.size(), "short names");
        std::ranges::copy(record.file, entry.file.begin());
        std::ranges::copy(record.xxh3, entry.xxh3.begin());
    }
    context_.control.all_gather(std::span(entries), offsets);
    UnitRecords all;
    for (const Entry& entry : entries) all[entry.unit] = {entry.file.data(), entry.bytes, entry.xxh3.data()};
    return all;
}

UnitRecords TrainedFiles::write_checkpoint(std::size_t step, const TrainedValues& values) const {
    const std::vector<TrainedState> states = values.checkpoint_states();
    const auto parts_of = [&](std::size_t unit) {
        Vectors parts;
        for (const TrainedState state : states) parts.push_back(values.part_on_host(unit, state));
        return parts;
    };
    return write_all(values, parts_of, [&](std::size_t unit, const Vectors& vectors) -> std::optional<FileRecord> {
        if (values.layout(unit).size() == 0) return std::nullopt;
        std::vector<FileTensor> tensors;
        for (std::size_t i = 0; i < vectors.size(); ++i) {
            tensors.push_back({dataset_of(states[i]), DType::f32, {vectors[i].size()}, as_bytes(vectors[i])});
        }
        return run_.commit_tensors(
            RunFolder::checkpoint_file(step, unit), tensors, {{"format", "espalier-finetune-checkpoint"}},
            [&](const std::filesystem::path& file) { check_written(file, tensors, host_threads_); }, host_threads_);
    });
}

void TrainedFiles::read_checkpoint(const UnitRecords& records, TrainedValues& values) const {
    for (const auto& [unit, record] : records) {
        if (writer_of(unit) == context_.me()) verify_file(run_, record);
    }
    for (std::size_t unit = 0; unit < values.units(); ++unit) {
        if (values.layout(unit).size() == 0) continue;
        const auto record = records.find(unit);
        if (record == records.end())
            throw InputError(run_.path().string() + ": the checkpoint has no file of unit " + std::to_string(unit));
        const Hdf5Reader file(run_.path() / record->second.file);
        const PartOffsets parts = values.parts(unit);
        const std::size_t first = parts[context_.me()], count = parts[context_.me() + 1] - first;
        const auto read = [&](const std::string& name) {
            const std::string dataset = hdf5_path(name);
            const Hdf5DatasetInfo info = file.info(dataset);
            if (info.dtype != DType::f32 || info.shape != std::vector<std::uint64_t>{values.layout(unit).size()})
                throw InputError((run_.path() / record->second.file).string() + ": " + dataset + " does not hold " +
                                 std::to_string(values.layout(unit).size()) + " float32 values");
            std::vector<float> part(count);
            if (count > 0) file.read_rows(dataset, first, count, std::as_writable_bytes(std::span(part)));
            return part;
        };
        for (const TrainedState state : values.checkpoint_states())
            values.set_part(unit, state, read(dataset_of(state)));
    }
    values.share();
}

UnitRecords TrainedFiles::write_result(const TrainedValues& values,
                                       const std::map<std::string, std::string>& attributes) const {
    const BlockLayout& layout = context_.student.layout();
    const auto parts_of = [&](std::size_t unit) { return Vectors{values.part_on_host(unit, TrainedState::values)}; };
    return write_all(values, parts_of, [&](std::size_t unit, const Vectors& vectors) -> std::optional<FileRecord> {
        const TrainedLayout& trained = values.layout(unit);
        if (trained.size() == 0 && unit == context_.blocks()) return std::nullopt;
        std::vector<std::vector<std::byte>> rounded;
        rounded.reserve(trained.tensors().size());
        std::vector<FileTensor> tensors;
        for (const TrainedTensor& tensor : trained.tensors()) {
            const DType dtype = tensor.kind == TrainedKind::weight ? context_.options.output_dtype : DType::f32;
            std::vector<std::byte>& data = rounded.emplace_back(tensor.size() * bytes_of(dtype));
            round_from_float(dtype, vectors[0].data() + tensor.offset, tensor.size(), data.data());
            const bool vector = tensor.kind == TrainedKind::gain;
            tensors.push_back({unit < context_.blocks() ? layout.tensor_name(unit, tensor.name) : tensor.name, dtype,
                               vector ? std::vector<std::uint64_t>{tensor.size()}
                                      : std::vector<std::uint64_t>{tensor.rows, tensor.columns},
                               data});
        }
        return run_.commit_block(
            unit, tensors, attributes,
            [&](const std::filesystem::path& file) { check_written(file, tensors, host_threads_); }, host_threads_);
    });
}

}  // namespace espalier
