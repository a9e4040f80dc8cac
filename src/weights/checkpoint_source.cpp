#include "src/weights/checkpoint_source.h"

#include "io/hub_cache.h"
#include "src/base/error.h"
#include "src/model/families/family.h"

#include <algorithm>
#include <optional>
#include <set>

namespace espalier {

namespace {

std::string shape_text(const std::vector<std::uint64_t>& shape) {
    std::string text = "[";
    for (std::size_t i = 0; i < shape.size(); ++i) text += (i == 0 ? "" : ", ") + std::to_string(shape[i]);
    return text + "]";
}

}  // namespace

bool is_unused_buffer(const std::string& tensor) {
    return tensor.ends_with(".rotary_emb.inv_freq");
}

CheckpointSource::CheckpointSource(const std::filesystem::path& folder) : CheckpointSource(open(folder)) {}

CheckpointSource CheckpointSource::open(const std::filesystem::path& folder) {
    const LocatedFolder located = locate_model_folder(folder);
    const std::vector<WeightFiles> files = CheckpointFolder::weight_files(located.path);
    CheckpointSource source =
        files.size() == 1 ? CheckpointSource(CheckpointFolder(located.path, files.front())) : choose(located.path);
    if (!located.note.empty()) source.notes_.insert(source.notes_.begin(), located.note);
    return source;
}

CheckpointSource CheckpointSource::choose(const std::filesystem::path& folder) {
    std::optional<CheckpointSource> single, sharded;
    std::string single_fault, sharded_fault;
    const auto attempt = [&](WeightFiles files, std::optional<CheckpointSource>& source, std::string& fault) {
        try {
            source.emplace(CheckpointSource(CheckpointFolder(folder, files)));
        } catch (const InputError& error) {
            fault = error.what();
        }
    };
    attempt(WeightFiles::single, single, single_fault);
    attempt(WeightFiles::sharded, sharded, sharded_fault);
    if (!single && !sharded) {
        if (single_fault == sharded_fault) throw InputError(single_fault);  // config.json's
        throw InputError(
            folder.string() +
            " holds model.safetensors and model.safetensors.index.json, and neither fits its config.json: " +
            single_fault + "; " + sharded_fault);
    }
    if (!single) {
        sharded->notes_.push_back(
            "the shards of model.safetensors.index.json are used; model.safetensors beside them " +
            ("does not fit config.json: " + single_fault));
        return std::move(*sharded);
    }
    single->notes_.push_back("model.safetensors is used; " +
                             (sharded ? "the shards of model.safetensors.index.json beside it fit config.json too, and "
                                        "transformers also prefers the single file"
                                      : "model.safetensors.index.json beside it cannot be: " + sharded_fault));
    return std::move(*single);
}

CheckpointSource::CheckpointSource(CheckpointFolder folder)
    : ModelSource(folder.config_text(), (folder.folder() / "config.json").string()), folder_(std::move(folder)) {
    warnings_ = folder_.warnings();
    for (std::size_t block = 0; block < config().blocks.size(); ++block) check_block(block);
    check_outer();
    refuse_unexpected();
}

void CheckpointSource::check_shape(const std::string& name, const std::vector<std::uint64_t>& expected) const {
    if (!folder_.contains(name)) {
        if (const auto file = folder_.unmapped(name)) {
            throw InputError("tensor '" + name + "' is stored in " + file->string() +
                             ", but weight_map of model.safetensors.index.json does not name it, though config.json "
                             "implies it");
        }
        throw InputError("tensor '" + name + "' of shape " + shape_text(expected) + " is missing in " +
                         folder_.folder().string() + ", though its config.json implies it");
    }
    const std::vector<std::uint64_t>& found = folder_.tensor(name).entry.shape;
    if (found != expected) {
        throw InputError("tensor '" + name + "' in " + folder_.file_of(folder_.tensor(name)).string() + " has shape " +
                         shape_text(found) + "; config.json implies " + shape_text(expected));
    }
}

void CheckpointSource::check_block(std::size_t block) {
    for (const StoredMatrix& matrix : layout().stored_matrices()) {
        const std::string name = layout().tensor_name(block, matrix.name);
        check_shape(name, {matrix.rows, matrix.columns});
        const DType dtype = folder_.dtype_of(name);
        if (block == 0 && matrix.offset == 0) storage_.matrix_dtype = dtype;
        if (dtype != storage_.matrix_dtype) {
            throw InputError("tensor '" + name + "' is " + std::string(name_of(dtype)) +
                             ", the matrices before it are " + std::string(name_of(storage_.matrix_dtype)) +
                             "; one type for all is expected");
        }
    }
    for (std::size_t v = 0; v < layout().vectors().size(); ++v) {
        const VectorShape& vector = layout().vectors()[v];
        const std::string name = layout().tensor_name(block, vector.name);
        check_shape(name, {vector.size});
        const DType dtype = folder_.dtype_of(name);
        if (block == 0) storage_.vector_dtypes.push_back(dtype);
        if (dtype != storage_.vector_dtypes[v]) {
            throw InputError("tensor '" + name + "' is " + std::string(name_of(dtype)) + ", in block 0 it is " +
                             std::string(name_of(storage_.vector_dtypes[v])));
        }
    }
}

void CheckpointSource::check_outer() {
    const std::uint64_t vocabulary = config().vocabulary, hidden = config().hidden_size;
    check_shape(layout().outer_name(OuterTensor::embedding), {vocabulary, hidden});
    check_shape(layout().outer_name(OuterTensor::final_norm), {hidden});
    static_cast<void>(folder_.dtype_of(layout().outer_name(OuterTensor::embedding)));
    static_cast<void>(folder_.dtype_of(layout().outer_name(OuterTensor::final_norm)));
    const std::string head = layout().outer_name(OuterTensor::head);
    own_head_ = folder_.contains(head);
    if (own_head_ || !config().tied_head) {
        check_shape(head, {vocabulary, hidden});
        static_cast<void>(folder_.dtype_of(head));
        own_head_ = true;
    }
    if (own_head_ && config().tied_head) {
        warnings_.push_back("config.json ties the head to the embedding, but '" + head +
                            "' is stored; the stored one is used");
    }
}

void CheckpointSource::refuse_unexpected() const {
    std::set<std::string> expected = {layout().outer_name(OuterTensor::embedding),
                                      layout().outer_name(OuterTensor::final_norm),
                                      layout().outer_name(OuterTensor::head)};
    for (std::size_t block = 0; block < config().blocks.size(); ++block) {
        for (const StoredMatrix& matrix : layout().stored_matrices()) {
            expected.insert(layout().tensor_name(block, matrix.name));
        }
        for (const VectorShape& vector : layout().vectors()) {
            expected.insert(layout().tensor_name(block, vector.name));
        }
    }
    const std::span<const std::string_view> others = family_of(config().model_type).other_tensors;
    const auto is_another = [&](const std::string& name) {
        return std::any_of(others.begin(), others.end(),
                           [&](std::string_view begin) { return name.starts_with(begin); });
    };
    for (const auto& [name, stored] : folder_.tensors()) {
        if (!expected.contains(name) && !is_unused_buffer(name) && !is_another(name)) {
            throw InputError("tensor '" + name + "' in " + folder_.file_of(stored).string() +
                             " does not belong to a model of type " + config().model_type + " with " +
                             std::to_string(config().blocks.size()) + " blocks as config.json describes it");
        }
    }
}

std::string CheckpointSource::stored_name(OuterTensor tensor) const {
    return layout().outer_name(tensor == OuterTensor::head && !own_head_ ? OuterTensor::embedding : tensor);
}

void CheckpointSource::read_rows(std::size_t block, const RowSlice& rows, std::span<std::byte> destination) const {
    const MatrixShape& matrix = layout().matrix(rows.layer);
    const std::size_t row_bytes = matrix.columns * bytes_of(storage_.matrix_dtype);
    require(destination.size() == rows.rows() * row_bytes, "room for the rows");
    folder_.read(layout().weight_name(block, rows.layer), (matrix.stored_row + rows.row_begin) * row_bytes,
                 destination);
}

void CheckpointSource::read_vectors(std::size_t block, std::span<std::byte> destination) const {
    std::size_t offset = 0;
    for (std::size_t v = 0; v < layout().vectors().size(); ++v) {
        const VectorShape& vector = layout().vectors()[v];
        const std::size_t bytes = vector.size * bytes_of(storage_.vector_dtypes[v]);
        folder_.read(layout().tensor_name(block, vector.name), 0, destination.subspan(offset, bytes));
        offset += bytes;
    }
}

DType CheckpointSource::outer_dtype(OuterTensor tensor) const {
    return folder_.dtype_of(stored_name(tensor));
}

std::size_t CheckpointSource::outer_rows(OuterTensor tensor) const {
    return static_cast<std::size_t>(folder_.tensor(stored_name(tensor)).entry.shape[0]);
}

void CheckpointSource::read_outer_rows(OuterTensor tensor, std::size_t first, std::size_t rows,
                                       std::span<std::byte> destination) const {
    const std::size_t row_bytes = outer_columns(tensor) * bytes_of(outer_dtype(tensor));
    require(destination.size() == rows * row_bytes, "room for the rows");
    folder_.read(stored_name(tensor), first * row_bytes, destination);
}

}  // namespace espalier
