#include "src/weights/export_folder.h"

#include "io/file.h"
#include "io/hdf5_handle.h"
#include "src/base/error.h"
#include "src/base/version.h"
#include "src/model/families/family.h"
#include "src/weights/checkpoint_source.h"
#include "src/weights/run_source.h"
#include "src/weights/synthetic_source.h"

#include <algorithm>
#include <vector>

namespace espalier {

namespace {

constexpr const char* unfinished_marker = ".espalier-export-unfinished";
constexpr std::size_t copy_bytes = std::size_t{4} << 20;

std::string safetensors_name(DType dtype) {
    return dtype == DType::f32 ? "F32" : dtype == DType::f16 ? "F16" : "BF16";
}

/// Files that hold weights in any form, or describe their layout: written anew or left out.
bool holds_weights(const std::filesystem::path& path) {
    const std::string name = path.filename().string();
    for (const char* const ending : {".safetensors", ".safetensors.index.json", ".bin", ".bin.index.json", ".pt",
                                     ".pth", ".gguf", ".h5", ".msgpack", ".onnx"}) {
        if (name.ends_with(ending)) return true;
    }
    return name == "config.json" || name == "pruning.json";
}

class Exporter {
  public:
    Exporter(const RunSource& run, const CheckpointSource& dense, const std::filesystem::path& folder)
        : run_(run), dense_(dense), folder_(folder) {
        for (std::size_t block = 0; block < run.config().blocks.size(); ++block) {
            for (const StoredMatrix& matrix : run.layout().stored_matrices()) {
                pruned_[run.layout().tensor_name(block, matrix.name)] = block;
            }
        }
    }

    void write_shard(std::size_t shard) {
        const CheckpointFolder& source = dense_.folder();
        std::vector<std::pair<std::string, SafetensorsEntry>> tensors;
        for (const auto& [name, stored] : source.tensors()) {
            if (stored.file == shard && !is_unused_buffer(name)) tensors.emplace_back(name, stored.entry);
        }
        for (auto& [name, entry] : tensors) {
            if (pruned_.contains(name)) set_output_type(entry);
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
        const Manifest& manifest = run_.manifest();
        Json blocks = Json::array();
        for (const auto& [index, record] : manifest.blocks) {
            blocks.push_back({{"index", index},
                              {"pruned", record.metrics.at("pruned")},
                              {"sparsity", record.metrics.at("sparsity")},
                              {"error_final", record.metrics.at("error_final")}});
        }
        const Json provenance = {{"format", "espalier-pruning"},
                                 {"version", 1},
                                 {"program_version", program_version},
                                 {"run_id", manifest.run_id},
                                 {"options", manifest.options},
                                 {"learning_rate", manifest.learning_rate},
                                 {"model", manifest.model_identity},
                                 {"calibration_sha256", manifest.calibration_sha256},
                                 {"blocks", blocks}};
        write_text_atomically(folder_ / "pruning.json", provenance.dump(1) + "\n");
    }

    void copy_other_files() const {
        for (const auto& item : std::filesystem::directory_iterator(dense_.folder().folder())) {
            if (!std::filesystem::is_regular_file(item.path()) || holds_weights(item.path())) continue;
            copy_durably(item.path(), folder_ / item.path().filename());
        }
    }

  private:
    void set_output_type(SafetensorsEntry& entry) const {
        const DType dtype = run_.storage().matrix_dtype;
        entry.dtype = safetensors_name(dtype);
        entry.bytes = bytes_of(dtype);
        for (const std::uint64_t dimension : entry.shape) entry.bytes *= dimension;
    }

    void write_tensor(AtomicFile& file, const std::string& name, const SafetensorsEntry& entry) const {
        const auto pruned = pruned_.find(name);
        if (pruned != pruned_.end()) {
            std::vector<std::byte> data(static_cast<std::size_t>(entry.bytes));
            Hdf5Reader(run_.run().block_path(pruned->second)).read(hdf5_path(name), data);
            file.write(data);
            return;
        }
        std::vector<std::byte> piece;
        for (std::uint64_t offset = 0; offset < entry.bytes; offset += copy_bytes) {
            piece.resize(static_cast<std::size_t>(std::min<std::uint64_t>(copy_bytes, entry.bytes - offset)));
            dense_.folder().read(name, offset, piece);
            file.write(piece);
        }
    }

    const RunSource& run_;
    const CheckpointSource& dense_;
    std::filesystem::path folder_;
    std::map<std::string, std::size_t> pruned_;  ///< tensor -> block
    std::uint64_t total_bytes_ = 0;
};

/// The Hugging Face folder that a run descends from: its own model, or, when it was pruned from another run, that
/// run's.
CheckpointSource open_dense(const std::filesystem::path& run_path, const Manifest& manifest,
                            const std::optional<std::filesystem::path>& named) {
    const std::filesystem::path path = named.value_or(manifest.model_path);
    if (SyntheticSource::is_named(path)) {
        throw InputError(run_path.string() + " was pruned from " + path.string() +
                         ", a synthetic model: there is no Hugging Face folder to export it like");
    }
    const auto refuse_another = [&](const std::string& identity) {
        if (identity == manifest.model_identity) return;
        throw InputError(
            path.string() + " is not the model that " + run_path.string() +
            " was pruned from (config.json, tensor headers or a run's files differ); name it with --model");
    };
    if (!RunFolder(path).has_manifest()) {
        CheckpointSource dense(path);
        refuse_another(dense.identity());
        return dense;
    }
    const RunSource earlier(path);
    refuse_another(earlier.identity());
    return open_dense(path, earlier.manifest(), {});
}

void write_folder(const RunSource& run, const CheckpointSource& dense, const std::filesystem::path& partial,
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

std::vector<std::string> export_run(const std::filesystem::path& run_path, const std::filesystem::path& output,
                                    const std::optional<std::filesystem::path>& dense_path,
                                    const std::function<void(const std::string&)>& progress) {
    const RunSource run(run_path);
    const CheckpointSource dense = open_dense(run_path, run.manifest(), dense_path);
    std::error_code error;
    if (std::filesystem::exists(output, error)) throw InputError("--output " + output.string() + " exists already");
    const std::filesystem::path partial = output.string() + ".partial";
    if (std::filesystem::exists(partial, error) && !std::filesystem::exists(partial / unfinished_marker, error)) {
        throw InputError(partial.string() + " exists and is not what an interrupted export left; move it away");
    }
    std::filesystem::remove_all(partial);
    std::filesystem::create_directories(partial, error);
    if (error) throw InputError("--output " + output.string() + " cannot be created: " + error.message());
    write_text_atomically(partial / unfinished_marker, "an export of " + run_path.string() + " is written here\n");
    try {
        write_folder(run, dense, partial, progress);
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
    return dense.remarks();
}

}  // namespace espalier
