#include "src/weights/finetuned_source.h"

#include "io/checksum.h"
#include "io/file.h"
#include "io/hdf5_handle.h"
#include "src/base/error.h"

#include <algorithm>

namespace espalier {

namespace {

std::vector<float> read_floats(const Hdf5Reader& file, const std::string& name) {
    const Hdf5DatasetInfo info = file.info(name);
    std::size_t count = 1;
    for (const std::uint64_t dimension : info.shape) count *= static_cast<std::size_t>(dimension);
    std::vector<std::byte> stored(count * bytes_of(info.dtype));
    file.read(name, stored);
    std::vector<float> values(count);
    widen_to_float(info.dtype, stored.data(), count, values.data());
    return values;
}

}  // namespace

FinetunedSource::FinetunedSource(const std::filesystem::path& path)
    : ModelSource(read_text(path / "config.json", config_limit), (path / "config.json").string()),
      run_(path),
      manifest_(FinetuneManifest::read(run_)) {
    if (!manifest_.complete) {
        throw InputError(path.string() + " is not finished: " + std::to_string(manifest_.progress.steps.size()) +
                         " steps are taken; run its command again to go on");
    }
    for (const FileRecord& record : manifest_.outer_files) {
        if (record.file == "config.json") verify_file(run_, record);
    }
    if (config().blocks.size() != manifest_.blocks_in_model) {
        throw InputError(path.string() + ": config.json has " + std::to_string(config().blocks.size()) +
                         " decoder blocks, the manifest " + std::to_string(manifest_.blocks_in_model));
    }
    base_ = open_model(manifest_.base_of(run_));
    if (base_->identity() != manifest_.base_identity) {
        throw InputError(base_->path().string() + " is not the model that " + path.string() +
                         " began with: its configuration, tensors or files differ");
    }
    const Json& options = manifest_.options;
    try {
        train_ = options.at("train").get<std::string>();
        trains_norms_ = options.at("train_norms").get<bool>();
        keeps_zeros_ = !is_dense();
        storage_ = base_->storage();
        storage_.matrix_dtype = float_dtype_from_name(options.at("output_dtype").get<std::string>());
        if (train_ != "masked") {
            rank_ = options.at("rank").get<std::size_t>();
            if (rank_ == 0) throw InputError((path / "manifest.json").string() + " is damaged (rank 0)");
            scale_ = options.at("alpha").get<double>() / static_cast<double>(rank_);
        }
    } catch (const Json::Error& error) {
        throw InputError((path / "manifest.json").string() + " is damaged (" + error.what() + ")");
    }
    for (std::size_t v = 0; trains_norms_ && v < layout().vectors().size(); ++v) {
        if (!layout().vectors()[v].bias_of) storage_.vector_dtypes[v] = DType::f32;
    }
    warnings_ = base_->warnings();
    notes_ = base_->notes();
}

std::vector<std::filesystem::path> FinetunedSource::folders() const {
    std::vector<std::filesystem::path> all = base_->folders();
    all.insert(all.begin(), path());
    return all;
}

void FinetunedSource::verify_block(std::size_t block) const {
    base_->verify_block(block);
    verify_file(run_, manifest_.blocks.at(block));
}

void FinetunedSource::verify_outer() const {
    base_->verify_outer();
    if (trains_final_norm()) verify_file(run_, manifest_.blocks.at(config().blocks.size()));
}

std::vector<float> FinetunedSource::trained(std::size_t block, std::string_view name) const {
    const Hdf5Reader file(run_.block_path(block));
    const std::string path = hdf5_path(layout().tensor_name(block, name));
    return file.contains(path) ? read_floats(file, path) : std::vector<float>();
}

void FinetunedSource::add_update(std::size_t block, const RowSlice& rows, std::vector<float>& values) const {
    const MatrixShape& matrix = layout().matrix(rows.layer);
    const std::vector<float> a = trained(block, matrix.name + ".lora_A.weight"),
                             b = trained(block, matrix.name + ".lora_B.weight");
    if (a.empty() && b.empty()) return;
    if (a.size() != rank_ * matrix.columns || b.size() != matrix.rows * rank_) {
        throw InputError(run_.block_path(block).string() + ": the update of " + matrix.name + " has " +
                         std::to_string(a.size()) + " and " + std::to_string(b.size()) + " values, not those of rank " +
                         std::to_string(rank_));
    }
    std::vector<float> update(matrix.columns);
    for (std::size_t row = 0; row < rows.rows(); ++row) {
        const float* const of_row = b.data() + (rows.row_begin + row) * rank_;
        std::ranges::fill(update, 0.0F);
        for (std::size_t k = 0; k < rank_; ++k) {
            const float* const of_rank = a.data() + k * matrix.columns;
            const float factor = of_row[k];
#pragma omp simd
            for (std::size_t j = 0; j < matrix.columns; ++j) update[j] += factor * of_rank[j];
        }
        float* const weights = values.data() + row * matrix.columns;
        const auto scale = static_cast<float>(scale_);
        for (std::size_t j = 0; j < matrix.columns; ++j) {
            const float merged = weights[j] + scale * update[j];
            weights[j] = keeps_zeros_ && weights[j] == 0.0F ? 0.0F : merged;
        }
    }
}

void FinetunedSource::read_rows(std::size_t block, const RowSlice& rows, std::span<std::byte> destination) const {
    const MatrixShape& matrix = layout().matrix(rows.layer);
    if (train_ == "masked") {
        const Hdf5Reader file(run_.block_path(block));
        const std::string path = hdf5_path(layout().tensor_name(block, matrix.name + ".weight"));
        if (file.contains(path)) {
            if (file.info(path).dtype != storage().matrix_dtype)
                throw InputError(run_.block_path(block).string() + ": " + path + " is not " +
                                 std::string(name_of(storage().matrix_dtype)));
            return file.read_rows(path, rows.row_begin, rows.rows(), destination);
        }
    }
    const DType of_base = base_->storage().matrix_dtype;
    std::vector<std::byte> stored(rows.rows() * matrix.columns * bytes_of(of_base));
    base_->read_rows(block, rows, stored);
    std::vector<float> values(rows.rows() * matrix.columns);
    widen_to_float(of_base, stored.data(), values.size(), values.data());
    if (train_ != "masked") add_update(block, rows, values);
    round_from_float(storage().matrix_dtype, values.data(), values.size(), destination.data());
}

void FinetunedSource::read_vectors(std::size_t block, std::span<std::byte> destination) const {
    if (!trains_norms_) return base_->read_vectors(block, destination);
    std::vector<std::byte> stored(base_->storage().vector_bytes(layout()));
    base_->read_vectors(block, stored);
    std::size_t from = 0, to = 0;
    for (std::size_t v = 0; v < layout().vectors().size(); ++v) {
        const VectorShape& vector = layout().vectors()[v];
        const DType of_base = base_->storage().vector_dtypes[v], of_this = storage().vector_dtypes[v];
        std::vector<float> values(vector.size);
        widen_to_float(of_base, stored.data() + from, vector.size, values.data());
        if (!vector.bias_of) {
            const std::vector<float> gain = trained(block, vector.name);
            if (gain.size() != values.size()) {
                throw InputError(run_.block_path(block).string() + ": the gain of " + vector.name + " has " +
                                 std::to_string(gain.size()) + " values; the model's has " +
                                 std::to_string(values.size()));
            }
            values = gain;
        }
        round_from_float(of_this, values.data(), values.size(), destination.data() + to);
        from += vector.size * bytes_of(of_base);
        to += vector.size * bytes_of(of_this);
    }
}

DType FinetunedSource::outer_dtype(OuterTensor tensor) const {
    return tensor == OuterTensor::final_norm && trains_final_norm() ? DType::f32 : base_->outer_dtype(tensor);
}

void FinetunedSource::read_outer_rows(OuterTensor tensor, std::size_t first, std::size_t rows,
                                      std::span<std::byte> destination) const {
    if (tensor != OuterTensor::final_norm || !trains_final_norm())
        return base_->read_outer_rows(tensor, first, rows, destination);
    const Hdf5Reader file(run_.block_path(config().blocks.size()));
    const std::vector<float> gain = read_floats(file, hdf5_path(layout().outer_name(tensor)));
    require(first + rows <= gain.size(), "rows of the final norm");
    round_from_float(DType::f32, gain.data() + first, rows, destination.data());
}

std::string FinetunedSource::identity() const {
    std::string text = manifest_.base_identity + manifest_.options.dump();
    for (const auto& [index, record] : manifest_.blocks) text += record.xxh3;
    return sha256(text);
}

}  // namespace espalier
