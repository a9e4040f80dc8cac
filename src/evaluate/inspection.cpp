#include "src/evaluate/inspection.h"

#include "io/checksum.h"
#include "io/file.h"
#include "io/hdf5_handle.h"
#include "src/base/error.h"
#include "src/base/json.h"
#include "src/method/prune_options.h"
#include "src/weights/checkpoint_source.h"
#include "src/weights/finetuned_source.h"
#include "src/weights/mask_bits.h"
#include "src/weights/mask_check.h"
#include "src/weights/run_source.h"

#include <algorithm>
#include <set>
#include <utility>

namespace espalier {

namespace {

double share_of_zeros(DType dtype, std::span<const std::byte> weights) {
    const std::size_t count = weights.size() / bytes_of(dtype);
    std::vector<float> values(count);
    widen_to_float(dtype, weights.data(), count, values.data());
    std::size_t zeros = 0;
    for (const float value : values) zeros += value == 0.0F ? 1U : 0U;
    return count == 0 ? 0.0 : static_cast<double>(zeros) / static_cast<double>(count);
}

/// Collects faults while the blocks of one model go by.
class Inspector {
  public:
    Inspector(const ModelSource& source, const ModelSource* dense, Inspection& result)
        : source_(source), dense_(dense), result_(result) {}

    /// The pattern and method of the run or export, when known.
    void expect(const PruningPattern& pattern, bool weights_kept, std::set<std::size_t> pruned_blocks) {
        pattern_ = pattern;
        weights_kept_ = weights_kept;
        pruned_blocks_ = std::move(pruned_blocks);
    }

    /// What is zero in `base` is to be zero here.
    void expect_zeros_of(const ModelSource& base) { base_ = &base; }
    std::size_t zeros_of_base() const { return zeros_of_base_; }

    void inspect_block(std::size_t block, const RunFolder* run) {
        BlockInspection& counts = result_.blocks.emplace_back();
        counts.block = block;
        std::vector<std::byte> raw(source_.storage().total_bytes(source_.layout()));
        source_.read_block(block, raw);
        const std::size_t element = bytes_of(source_.storage().matrix_dtype);
        const auto weights_of = [&](const auto& matrix) {
            return std::span<const std::byte>(raw).subspan(matrix.offset * element, matrix.size() * element);
        };
        for (const MatrixShape& matrix : source_.layout().matrices()) {
            counts.zero_share.push_back(share_of_zeros(source_.storage().matrix_dtype, weights_of(matrix)));
        }
        if (pruned_blocks_.contains(block)) {
            for (const StoredMatrix& matrix : source_.layout().stored_matrices()) {
                check_matrix(run, block, matrix, weights_of(matrix), counts);
            }
        }
        if (base_ != nullptr) compare_zeros(block, raw);
        if (dense_ != nullptr) compare_with_dense(block, raw, counts.pruned);
    }

    void compare_outer() {
        const auto* const finetuned = dynamic_cast<const FinetunedSource*>(&source_);
        for (const OuterTensor tensor : {OuterTensor::embedding, OuterTensor::final_norm, OuterTensor::head}) {
            if (tensor == OuterTensor::final_norm && finetuned != nullptr && finetuned->trains_norms()) continue;
            if (tensor == OuterTensor::head && source_.has_own_head() != dense_->has_own_head()) {
                fault("'" + source_.layout().outer_name(tensor) + "' is stored in only one of the two models");
                continue;
            }
            if (tensor == OuterTensor::head && !source_.has_own_head()) continue;
            if (source_.outer_dtype(tensor) != dense_->outer_dtype(tensor) ||
                source_.outer_rows(tensor) != dense_->outer_rows(tensor)) {
                fault("'" + source_.layout().outer_name(tensor) +
                      "' has another type or shape than in the dense model");
                continue;
            }
            compare_rows(tensor);
        }
    }

  private:
    std::string weight_name(std::size_t block, const StoredMatrix& matrix) const {
        return source_.layout().tensor_name(block, matrix.name);
    }
    void fault(const std::string& sentence) { result_.faults.push_back(sentence); }

    /// Against the stored mask of a run, or, in an exported folder, against the zeros themselves: each group or row has
    /// at least as many as the pattern removes.
    void check_matrix(const RunFolder* run, std::size_t block, const StoredMatrix& matrix,
                      std::span<const std::byte> weights, BlockInspection& counts) {
        counts.pruned = true;
        if (run == nullptr) {
            const std::string found = check_zeros(weights, source_.storage().matrix_dtype, matrix.columns, *pattern_);
            if (!found.empty()) fault("'" + weight_name(block, matrix) + "': " + found);
            return;
        }
        const Hdf5Reader file(run->block_path(block));
        const std::string name = hdf5_path(source_.layout().tensor_name(block, matrix.mask));
        if (!file.contains(name)) {
            fault(run->block_path(block).string() + ": " + name +
                  " is missing, though the manifest calls the block pruned");
            return;
        }
        std::vector<std::byte> packed(matrix.rows * ((matrix.columns + 7) / 8));
        file.read(name, packed);
        const std::string found = check_pruned_matrix(unpack_mask(packed, matrix.rows, matrix.columns), weights,
                                                      source_.storage().matrix_dtype, matrix.columns, *pattern_);
        if (!found.empty()) fault(run->block_path(block).string() + ": " + name + ": " + found);
    }

    void compare_zeros(std::size_t block, std::span<const std::byte> raw) {
        const BlockLayout& layout = source_.layout();
        std::vector<std::byte> before(base_->storage().total_bytes(layout));
        base_->read_block(block, before);
        const auto values_of = [&](const ModelSource& source, std::span<const std::byte> stored,
                                   const MatrixShape& matrix) {
            const DType dtype = source.storage().matrix_dtype;
            std::vector<float> values(matrix.size());
            widen_to_float(dtype, stored.data() + matrix.offset * bytes_of(dtype), values.size(), values.data());
            return values;
        };
        for (const LinearLayer layer : layout.linear_layers()) {
            const MatrixShape& matrix = layout.matrix(layer);
            const std::vector<float> old = values_of(*base_, before, matrix), now = values_of(source_, raw, matrix);
            std::size_t zeros = 0, lost = 0;
            for (std::size_t i = 0; i < old.size(); ++i) {
                zeros += old[i] == 0.0F ? 1U : 0U;
                lost += old[i] == 0.0F && now[i] != 0.0F ? 1U : 0U;
            }
            zeros_of_base_ += zeros;
            if (lost > 0) {
                fault("'" + layout.tensor_name(block, matrix.name) + "': " + std::to_string(lost) + " of " +
                      std::to_string(zeros) + " zeros of " + base_->path().string() + " are zeros no more");
            }
        }
    }

    void compare_with_dense(std::size_t block, std::span<const std::byte> raw, bool pruned) {
        const auto* const finetuned = dynamic_cast<const FinetunedSource*>(&source_);
        const bool norms_trained = finetuned != nullptr && finetuned->trains_norms();
        std::vector<std::byte> original(dense_->storage().total_bytes(dense_->layout()));
        if (dense_->layout().weights() != source_.layout().weights() ||
            (!norms_trained && dense_->storage().vector_dtypes != source_.storage().vector_dtypes)) {
            fault("block " + std::to_string(block) + " has other shapes or types than in the dense model");
            return;
        }
        dense_->read_block(block, original);
        const std::size_t matrix_bytes = source_.storage().matrix_bytes(source_.layout());
        const std::size_t dense_bytes = dense_->storage().matrix_bytes(dense_->layout());
        std::size_t now = matrix_bytes, before = dense_bytes;
        for (std::size_t v = 0; v < source_.layout().vectors().size(); ++v) {
            const VectorShape& vector = source_.layout().vectors()[v];
            const std::size_t bytes = vector.size * bytes_of(source_.storage().vector_dtypes[v]);
            const auto of_source = raw.subspan(now, bytes);
            now += bytes;
            const std::size_t place =
                std::exchange(before, before + vector.size * bytes_of(dense_->storage().vector_dtypes[v]));
            if (norms_trained && !vector.bias_of) continue;
            if (!std::ranges::equal(of_source, std::span(original).subspan(place, bytes)))
                fault("block " + std::to_string(block) + ": a norm or bias differs from the dense model");
        }
        if (finetuned != nullptr || dense_->storage().matrix_dtype != source_.storage().matrix_dtype ||
            (pruned && !weights_kept_))
            return;
        compare_survivors(block, raw.first(matrix_bytes), original, pruned);
    }

    void compare_survivors(std::size_t block, std::span<const std::byte> raw, std::span<const std::byte> original,
                           bool pruned) {
        const std::size_t element = bytes_of(source_.storage().matrix_dtype);
        for (const StoredMatrix& matrix : source_.layout().stored_matrices()) {
            for (std::size_t i = matrix.offset; i < matrix.offset + matrix.size(); ++i) {
                const auto now = raw.subspan(i * element, element), before = original.subspan(i * element, element);
                const bool same = std::equal(now.begin(), now.end(), before.begin());
                const bool removed = std::all_of(now.begin(), now.end(), [](std::byte b) { return b == std::byte{0}; });
                if (same || (pruned && removed)) continue;
                fault("'" + weight_name(block, matrix) + "' has a surviving weight that differs from the dense model");
                break;
            }
        }
    }

    void compare_rows(OuterTensor tensor) {
        const std::size_t rows = source_.outer_rows(tensor);
        const std::size_t row_bytes = source_.outer_row_bytes(tensor), panel = source_.outer_panel_rows(tensor);
        for (std::size_t first = 0; first < rows; first += panel) {
            const std::size_t count = std::min(panel, rows - first);
            std::vector<std::byte> now(count * row_bytes), before(now.size());
            source_.read_outer_rows(tensor, first, count, now);
            dense_->read_outer_rows(tensor, first, count, before);
            if (now != before) {
                fault("'" + source_.layout().outer_name(tensor) + "' differs from the dense model");
                return;
            }
        }
    }

    const ModelSource& source_;
    const ModelSource* dense_;
    Inspection& result_;
    const ModelSource* base_ = nullptr;
    std::size_t zeros_of_base_ = 0;
    std::optional<PruningPattern> pattern_;
    bool weights_kept_ = false;
    std::set<std::size_t> pruned_blocks_;
};

std::vector<FileRecord> files_of(const Manifest& manifest) {
    std::vector<FileRecord> records = manifest.outer_files;
    for (const auto& block : manifest.blocks) records.push_back(block.second.file);
    return records;
}

std::vector<FileRecord> files_of(const FinetuneManifest& manifest) {
    std::vector<FileRecord> records = manifest.outer_files;
    for (const auto& [block, record] : manifest.blocks) records.push_back(record);
    return records;
}

void check_files(const RunFolder& run, const std::vector<FileRecord>& records, Inspection& result) {
    for (const FileRecord& record : records) {
        const std::filesystem::path path = run.path() / record.file;
        if (!std::filesystem::exists(path)) {
            result.faults.push_back(path.string() + " is missing");
        } else if (std::filesystem::file_size(path) != record.bytes || xxh3_128_of_file(path) != record.xxh3) {
            result.faults.push_back(path.string() +
                                    " is not the file that the manifest names (size or checksum differs)");
        }
    }
    result.checked.push_back(std::to_string(records.size()) +
                             " files against the manifest's sizes and XXH3-128 checksums");
}

/// What pruning.json of an exported folder says was pruned, and how, and whether it was fine-tuned since.
void expect_export(const std::filesystem::path& file,
                   const std::function<void(const Json&, std::set<std::size_t>, bool finetuned)>& expect) {
    const Json json = parse_strict_json(read_text(file, std::uint64_t{64} << 20), file.string());
    try {
        if (!json.contains("blocks")) return;  // fine-tuned, and pruned by another program
        std::set<std::size_t> pruned;
        for (const Json& block : json.at("blocks")) {
            if (block.at("pruned").get<bool>()) pruned.insert(block.at("index").get<std::size_t>());
        }
        expect(json.at("options"), std::move(pruned), json.contains("finetuning"));
    } catch (const Json::Error& error) {
        throw InputError(file.string() + " is damaged (" + error.what() + ")");
    }
}

}  // namespace

Inspection inspect_model(const std::filesystem::path& path, const std::optional<std::filesystem::path>& dense_path,
                         const std::function<void(const std::string&)>& progress) {
    const std::unique_ptr<ModelSource> source = open_model(path);
    const std::unique_ptr<ModelSource> dense = dense_path ? open_model(*dense_path) : nullptr;
    if (dense && dense->config().blocks.size() != source->config().blocks.size()) {
        throw InputError("the two models have " + std::to_string(source->config().blocks.size()) + " and " +
                         std::to_string(dense->config().blocks.size()) + " decoder blocks");
    }
    Inspection result{{}, {}, {}, source->layout()};
    for (const ModelSource* const opened : {source.get(), dense.get()}) {
        if (opened == nullptr) continue;
        for (const std::string& remark : opened->remarks()) result.remarks.push_back(remark);
    }
    Inspector inspector(*source, dense.get(), result);
    const RunFolder* run = nullptr;
    const auto expect = [&](const Json& options, std::set<std::size_t> pruned_blocks, bool finetuned) {
        const Method method = method_from_name(options.at("method").get<std::string>());
        inspector.expect(
            PruningPattern::parse(options.at("pattern").get<std::string>(), options.at("sparsity").get<double>()),
            method.only_removes() && !finetuned, std::move(pruned_blocks));
    };
    const auto* const finetuned = dynamic_cast<const FinetunedSource*>(source.get());
    const auto expect_run = [&](const RunSource& run_source) {
        std::set<std::size_t> pruned;
        for (const auto& [index, record] : run_source.manifest().blocks) {
            if (record.metrics.at("pruned").get<bool>()) pruned.insert(index);
        }
        expect(run_source.manifest().options, std::move(pruned), finetuned != nullptr);
    };
    if (finetuned != nullptr) {
        check_files(finetuned->run(), files_of(finetuned->manifest()), result);
        if (finetuned->keeps_zeros()) {
            inspector.expect_zeros_of(finetuned->base());
            if (const auto* const base = dynamic_cast<const RunSource*>(&finetuned->base())) expect_run(*base);
        } else {
            result.remarks.push_back(
                "note: trained with --train lora: with its updates the model is dense (zeros below are chance)");
        }
    } else if (const auto* const run_source = dynamic_cast<const RunSource*>(source.get())) {
        run = &run_source->run();
        expect_run(*run_source);
        check_files(*run, files_of(run_source->manifest()), result);
        result.checked.push_back(
            "every group or row of every mask, and that removed weights are +0.0 and all are finite");
    } else if (std::filesystem::exists(source->path() / "pruning.json")) {
        expect_export(source->path() / "pruning.json", expect);
        result.checked.push_back("zeros of every group or row against pruning.json");
    }
    for (std::size_t block = 0; block < source->config().blocks.size(); ++block) {
        progress("block " + std::to_string(block + 1) + " of " + std::to_string(source->config().blocks.size()));
        try {
            inspector.inspect_block(block, run);
        } catch (const InputError& error) {
            result.faults.emplace_back(error.what());  // the other blocks are still worth looking at
        }
    }
    if (finetuned != nullptr && finetuned->keeps_zeros()) {
        result.checked.push_back("all " + std::to_string(inspector.zeros_of_base()) + " zeros of " +
                                 finetuned->base().path().string() + ", one by one");
    }
    if (dense) {
        inspector.compare_outer();
        const bool norms_trained = finetuned != nullptr && finetuned->trains_norms();
        result.checked.push_back(std::string(norms_trained ? "" : "norms, ") +
                                 "biases, embedding and head bit for bit against " + dense->path().string() +
                                 (norms_trained ? " (the norms were trained)" : ""));
    }
    return result;
}

}  // namespace espalier
