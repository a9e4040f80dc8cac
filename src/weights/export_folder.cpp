#include "src/weights/export_folder.h"

#include "io/file.h"
#include "src/base/error.h"
#include "src/base/version.h"
#include "src/model/families/family.h"
#include "src/weights/checkpoint_source.h"
#include "src/weights/finetuned_source.h"
#include "src/weights/run_source.h"
#include "src/weights/synthetic_source.h"

#include <algorithm>
#include <vector>

namespace espalier {

namespace {

constexpr const char* unfinished_marker = ".espalier-export-unfinished";
constexpr std::size_t copy_bytes = std::size_t{4} << 20;

/// Files that hold weights in any form, or describe their layout: written anew or left out.
bool holds_weights(const std::filesystem::path& path) {
    const std::string name = path.filename().string();
    for (const char* const ending : {".safetensors", ".safetensors.index.json", ".bin", ".bin.index.json", ".pt",
                                     ".pth", ".gguf", ".h5", ".msgpack", ".onnx"}) {
        if (name.ends_with(ending)) return true;
    }
    return name == "config.json" || name == "pruning.json";
}

/// The run that pruned a model: the source itself, or what a run of fine-tuning began with; null when there is none.
const RunSource* pruning_run(const ModelSource& source) {
    if (const auto* const finetuned = dynamic_cast<const FinetunedSource*>(&source))
        return pruning_run(finetuned->base());
    return dynamic_cast<const RunSource*>(&source);
}

/// Where a run's model keeps a tensor of the checkpoint: a matrix as files store it, a vector of a block, or, without
/// both, the final norm. Embedding and head are never changed.
struct RunTensor {
    std::size_t block = 0;
    std::optional<std::size_t> stored_matrix = {};
    std::optional<BlockVector> vector = {};
};

std::string safetensors_name(DType dtype) {
    return dtype == DType::f32 ? "F32" : dtype == DType::f16 ? "F16" : "BF16";
}

class Exporter {
  public:
    Exporter(const ModelSource& run, const CheckpointSource& dense, const std::filesystem::path& folder)
        : run_(run), dense_(dense), folder_(folder) {
        const BlockLayout& layout = run.layout();
        for (std::size_t block = 0; block < run.config().blocks.size(); ++block) {
            for (std::size_t stored = 0; stored < layout.stored_matrices().size(); ++stored) {
                tensors_[layout.tensor_name(block, layout.stored_matrices()[stored].name)] = {block, stored, {}};
            }
            for (std::size_t v = 0; v < layout.vectors().size(); ++v)
                tensors_[layout.tensor_name(block, layout.vectors()[v].name)] = {block, {}, BlockVector{v}};
        }
        tensors_[layout.outer_name(OuterTensor::final_norm)] = {};
    }

    void write_shard(std::size_t shard) {
        const CheckpointFolder& source = dense_.folder();
        std::vector<std::pair<std::string, SafetensorsEntry>> tensors;
        for (const auto& [name, stored] : source.tensors()) {
            if (stored.file == shard && !is_unused_buffer(name)) tensors.emplace_back(name, stored.entry);
        }
        for (auto& [name, entry] : tensors) {
            if (const auto found = tensors_.find(name); found != tensors_.end()) set_output_type(found->second, entry);
            total_bytes_ += entry.bytes;
        }
        // As in the source, but wide types first, so that every tensor lies at a multiple of its element's size.
        std::sort(tensors.begin(), tensors.end(), [](const auto& a, const auto& b) {
            const auto order = [](const SafetensorsEntry& entry) {
                return std::pair(entry.dtype == "F32" ? 0 : 1, entry.begin);
            };
            return order(a.second) < order(b.second);
        });
        std::map<std::string, std::string> metadata = source.metadata_of_shard(shard);
        metadata["format"] = "pt";  // older transformers refuse a file without it
        AtomicFile file(folder_ / source.shard_names()[shard]);
        file.write(make_safetensors_header(tensors, metadata));
        for (const auto& [name, entry] : tensors) write_tensor(file, name, entry);
        file.commit();
    }

    void write_index() const {
        Json index = {{"metadata", {{"total_size", total_bytes_}}}, {"weight_map", Json::object()}};
        const std::vector<std::string> names = dense_.folder().shard_names();
        for (const auto& [name, stored] : dense_.folder().tensors()) {
            if (!is_unused_buffer(name)) index["weight_map"][name] = names[stored.file];
        }
        write_text_atomically(folder_ / "model.safetensors.index.json", index.dump(2) + "\n");
    }

    void write_config() const {
        if (run_.storage().matrix_dtype == dense_.storage().matrix_dtype) {
            write_text_atomically(folder_ / "config.json", dense_.config_text());
            return;
        }
        const std::string_view config = dense_.config_text();
        const std::string source = (dense_.folder().folder() / "config.json").string();
        Json json = parse_strict_json(config, source);
        const std::string type(name_of(run_.storage().matrix_dtype));
        const char* const key = json.contains("dtype") ? "dtype" : "torch_dtype";
        const char* const inner = family_of(dense_.config().model_type).text_config;
        if (inner == nullptr) {
            write_text_atomically(folder_ / "config.json", with_json_field(config, source, key, type) + "\n");
            return;
        }
        json[key] = type;
        for (const char* const name : {"dtype", "torch_dtype"}) {
            if (json[inner].contains(name)) json[inner][name] = type;
        }
        write_text_atomically(folder_ / "config.json", json.dump(2) + "\n");
    }

    void write_provenance() const {
        Json provenance;
        if (const RunSource* const pruned = pruning_run(run_)) {
            const Manifest& manifest = pruned->manifest();
            Json blocks = Json::array();
            for (const auto& [index, record] : manifest.blocks) {
                blocks.push_back({{"index", index},
                                  {"pruned", record.metrics.at("pruned")},
                                  {"sparsity", record.metrics.at("sparsity")},
                                  {"error_final", record.metrics.at("error_final")}});
            }
            provenance = {{"format", "espalier-pruning"},
                          {"version", 1},
                          {"program_version", program_version},
                          {"run_id", manifest.run_id},
                          {"options", manifest.options},
                          {"learning_rate", manifest.learning_rate},
                          {"model", manifest.model_identity},
                          {"calibration_sha256", manifest.calibration_sha256},
                          {"blocks", blocks}};
        } else if (const std::filesystem::path of_dense = dense_.path() / "pruning.json";
                   std::filesystem::exists(of_dense)) {
            provenance = parse_strict_json(read_text(of_dense, std::uint64_t{64} << 20), of_dense.string());
        }
        if (const auto* const finetuned = dynamic_cast<const FinetunedSource*>(&run_)) {
            const FinetuneManifest& manifest = finetuned->manifest();
            if (provenance.is_null()) provenance = {{"format", "espalier-finetuning"}, {"version", 1}};
            provenance["finetuning"] = {
                {"run_id", manifest.run_id},           {"program_version", manifest.program_version},
                {"options", manifest.options},         {"base", manifest.base_identity},
                {"data_sha256", manifest.data_sha256}, {"zeros_kept", finetuned->keeps_zeros()}};
        }
        write_text_atomically(folder_ / "pruning.json", provenance.dump(1) + "\n");
    }

    void copy_other_files() const {
        for (const auto& item : std::filesystem::directory_iterator(dense_.folder().folder())) {
            if (!std::filesystem::is_regular_file(item.path()) || holds_weights(item.path())) continue;
            copy_durably(item.path(), folder_ / item.path().filename());
        }
    }

  private:
    /// In which the run has a tensor.
    DType stored_type(const RunTensor& tensor) const {
        if (tensor.stored_matrix) return run_.storage().matrix_dtype;
        return tensor.vector ? run_.storage().vector_dtypes[index_of(*tensor.vector)]
                             : run_.outer_dtype(OuterTensor::final_norm);
    }

    /// In which it is written: vectors that were trained, which are float32 then, as the matrices are.
    DType written_type(const RunTensor& tensor, const SafetensorsEntry& in_dense) const {
        const DType stored = stored_type(tensor);
        return tensor.stored_matrix || in_dense.dtype == safetensors_name(stored) ? stored
                                                                                  : run_.storage().matrix_dtype;
    }

    void set_output_type(const RunTensor& tensor, SafetensorsEntry& entry) const {
        const DType dtype = written_type(tensor, entry);
        entry.dtype = safetensors_name(dtype);
        entry.bytes = bytes_of(dtype);
        for (const std::uint64_t dimension : entry.shape) entry.bytes *= dimension;
    }

    std::vector<std::byte> read_matrix(std::size_t block, std::size_t stored) const {
        const BlockLayout& layout = run_.layout();
        std::vector<std::byte> data;
        for (const LinearLayer layer : layout.linear_layers()) {
            const MatrixShape& matrix = layout.matrix(layer);
            if (matrix.stored != stored) continue;
            const std::size_t begin = data.size();
            data.resize(begin + matrix.size() * bytes_of(run_.storage().matrix_dtype));
            run_.read_rows(block, {layer, 0, matrix.rows}, std::span(data).subspan(begin));
        }
        return data;
    }

    std::vector<std::byte> read_vector(const RunTensor& tensor) const {
        const BlockLayout& layout = run_.layout();
        const DType dtype = stored_type(tensor);
        std::vector<std::byte> data;
        if (!tensor.vector) {
            data.resize(run_.config().hidden_size * bytes_of(dtype));
            run_.read_outer_rows(OuterTensor::final_norm, 0, run_.config().hidden_size, data);
            return data;
        }
        std::vector<std::byte> vectors(run_.storage().vector_bytes(layout));
        run_.read_vectors(tensor.block, vectors);
        std::size_t offset = 0;
        for (std::size_t v = 0; v < index_of(*tensor.vector); ++v)
            offset += layout.vectors()[v].size * bytes_of(run_.storage().vector_dtypes[v]);
        const std::size_t bytes = layout.vectors()[index_of(*tensor.vector)].size * bytes_of(dtype);
        const auto begin = vectors.begin() + static_cast<std::ptrdiff_t>(offset);
        return {begin, begin + static_cast<std::ptrdiff_t>(bytes)};
    }

    std::vector<std::byte> read_from_run(const RunTensor& tensor, const std::string& written) const {
        if (tensor.stored_matrix) return read_matrix(tensor.block, *tensor.stored_matrix);
        std::vector<std::byte> data = read_vector(tensor);
        const DType stored = stored_type(tensor), dtype = run_.storage().matrix_dtype;
        if (written == safetensors_name(stored)) return data;
        std::vector<float> values(data.size() / bytes_of(stored));
        widen_to_float(stored, data.data(), values.size(), values.data());
        data.resize(values.size() * bytes_of(dtype));
        round_from_float(dtype, values.data(), values.size(), data.data());
        return data;
    }

    void write_tensor(AtomicFile& file, const std::string& name, const SafetensorsEntry& entry) const {
        if (const auto of_run = tensors_.find(name); of_run != tensors_.end()) {
            file.write(read_from_run(of_run->second, entry.dtype));
            return;
        }
        std::vector<std::byte> piece;
        for (std::uint64_t offset = 0; offset < entry.bytes; offset += copy_bytes) {
            piece.resize(static_cast<std::size_t>(std::min<std::uint64_t>(copy_bytes, entry.bytes - offset)));
            dense_.folder().read(name, offset, piece);
            file.write(piece);
        }
    }

    const ModelSource& run_;
    const CheckpointSource& dense_;
    std::filesystem::path folder_;
    std::map<std::string, RunTensor> tensors_;  ///< by name; all others are the dense model's
    std::uint64_t total_bytes_ = 0;
};

/// The Hugging Face folder that a run descends from: its own model, or, when it was made from another run, that run's.
CheckpointSource open_dense(const ModelSource& source, const std::optional<std::filesystem::path>& named) {
    const std::string name = source.path().string();
    if (SyntheticSource::is_named(source.path())) {
        throw InputError(name +
                         " is a synthetic model: there is no Hugging Face folder to export what became of it like");
    }
    if (const auto* const finetuned = dynamic_cast<const FinetunedSource*>(&source))
        return open_dense(finetuned->base(), named);
    const auto* const run = dynamic_cast<const RunSource*>(&source);
    if (run == nullptr) {
        CheckpointSource dense(named.value_or(source.path()));
        if (dense.identity() != source.identity()) {
            throw InputError(dense.path().string() + " is not the model that " + name +
                             " is (config.json or tensor headers differ); name it with --model");
        }
        return dense;
    }
    const std::filesystem::path path = named.value_or(run->manifest().model_path);
    if (SyntheticSource::is_named(path)) {
        throw InputError(name + " was pruned from " + path.string() +
                         ", a synthetic model: there is no Hugging Face folder to export it like");
    }
    const auto refuse_another = [&](const std::string& identity) {
        if (identity == run->manifest().model_identity) return;
        throw InputError(
            path.string() + " is not the model that " + name +
            " was pruned from (config.json, tensor headers or a run's files differ); name it with --model");
    };
    if (!RunFolder(path).has_manifest()) {
        CheckpointSource dense(path);  // by this name: of a model's folder in the hub's cache it says what was chosen
        refuse_another(dense.identity());
        return dense;
    }
    const std::unique_ptr<ModelSource> before = open_model(path);
    refuse_another(before->identity());
    return open_dense(*before, {});
}

void write_folder(const ModelSource& run, const CheckpointSource& dense, const std::filesystem::path& partial,
                  const std::function<void(const std::string&)>& progress) {
    for (std::size_t block = 0; block < run.config().blocks.size(); ++block) run.verify_block(block);
    Exporter exporter(run, dense, partial);
    const std::vector<std::string> shards = dense.folder().shard_names();
    for (std::size_t shard = 0; shard < shards.size(); ++shard) {
        progress("shard " + std::to_string(shard + 1) + " of " + std::to_string(shards.size()));
        exporter.write_shard(shard);
    }
    if (dense.folder().sharded()) exporter.write_index();
    exporter.write_config();
    exporter.copy_other_files();
    exporter.write_provenance();
}

}  // namespace

std::vector<std::string> export_run(const ModelSource& run, const std::filesystem::path& output,
                                    const std::optional<std::filesystem::path>& dense_path,
                                    const std::function<void(const std::string&)>& progress) {
    const auto* const finetuned = dynamic_cast<const FinetunedSource*>(&run);
    if (finetuned != nullptr && !finetuned->keeps_zeros()) {
        throw InputError(
            run.path().string() +
            " was trained with --train lora: merged, its updates would fill the zeros. --adapter writes them "
            "as a PEFT adapter; --merge-masked merges what lies on kept weights");
    }
    const CheckpointSource dense = open_dense(run, dense_path);
    write_folder_at_once(output, "an export of " + run.path().string(),
                         [&](const std::filesystem::path& partial) { write_folder(run, dense, partial, progress); });
    return dense.remarks();
}

void write_folder_at_once(const std::filesystem::path& output, const std::string& what,
                          const std::function<void(const std::filesystem::path&)>& write) {
    std::error_code error;
    if (std::filesystem::exists(output, error)) throw InputError("--output " + output.string() + " exists already");
    const std::filesystem::path partial = output.string() + ".partial";
    if (std::filesystem::exists(partial, error) && !std::filesystem::exists(partial / unfinished_marker, error)) {
        throw InputError(partial.string() + " exists and is not what an interrupted export left; move it away");
    }
    std::filesystem::remove_all(partial);
    std::filesystem::create_directories(partial, error);
    if (error) throw InputError("--output " + output.string() + " cannot be created: " + error.message());
    write_text_atomically(partial / unfinished_marker, what + " is written here\n");
    try {
        write(partial);
    } catch (...) {
        std::filesystem::remove_all(partial, error);
        throw;
    }
    std::filesystem::remove(partial / unfinished_marker);
    try {
        rename_durably(partial, output);
    } catch (const Error& failure) {
        if (!std::filesystem::exists(partial, error)) throw;
        throw ResourceError(std::string(failure.what()) + "; the export is complete in " + partial.string() +
                            ": rename that folder yourself");
    }
}

}  // namespace espalier
