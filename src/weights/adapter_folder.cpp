#include "src/weights/adapter_folder.h"

#include "io/file.h"
#include "io/safetensors.h"
#include "src/base/error.h"
#include "src/weights/export_folder.h"

#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

namespace espalier {

namespace {

/// An update [rank, in] and [out, rank] of a module of the checkpoint. Where the checkpoint stores several matrices as
/// one, so does the adapter: their A below each other, their B along a diagonal.
struct ModuleUpdate {
    std::size_t rank = 0, rows = 0, columns = 0;
    std::vector<float> a, b;
};

std::string without_ending(const std::string& name) {
    return name.substr(0, name.rfind(".weight"));
}

/// Updates of a block's modules, by their names in the block.
std::map<std::string, ModuleUpdate> updates_of(const FinetunedSource& run, std::size_t block) {
    const BlockLayout& layout = run.layout();
    std::map<std::string, ModuleUpdate> updates;
    for (std::size_t stored = 0; stored < layout.stored_matrices().size(); ++stored) {
        struct Part {
            std::size_t row;
            std::vector<float> a, b;
        };
        std::vector<Part> parts;
        ModuleUpdate update;
        update.rows = layout.stored_matrices()[stored].rows;
        update.columns = layout.stored_matrices()[stored].columns;
        for (const LinearLayer layer : layout.linear_layers()) {
            const MatrixShape& matrix = layout.matrix(layer);
            if (matrix.stored != stored) continue;
            Part part{matrix.stored_row, run.trained(block, matrix.name + ".lora_A.weight"),
                      run.trained(block, matrix.name + ".lora_B.weight")};
            if (!part.a.empty()) parts.push_back(std::move(part));
        }
        for (const Part& part : parts) update.rank += part.a.size() / update.columns;
        if (parts.empty()) continue;
        update.b.assign(update.rows * update.rank, 0.0F);
        std::size_t first = 0;
        for (const Part& part : parts) {
            const std::size_t rank = part.a.size() / update.columns;
            update.a.insert(update.a.end(), part.a.begin(), part.a.end());
            for (std::size_t row = 0; row < part.b.size() / rank; ++row) {
                std::copy_n(part.b.data() + row * rank, rank, update.b.data() + (part.row + row) * update.rank + first);
            }
            first += rank;
        }
        updates[without_ending(layout.stored_matrices()[stored].name)] = std::move(update);
    }
    return updates;
}

void write_tensors(const FinetunedSource& run, const std::filesystem::path& file) {
    std::vector<std::pair<std::string, SafetensorsEntry>> tensors;
    std::uint64_t offset = 0;
    const auto add = [&](const std::string& name, std::size_t rows, std::size_t columns) {
        SafetensorsEntry entry;
        entry.dtype = "F32";
        entry.shape = {rows, columns};
        entry.begin = offset;
        entry.bytes = rows * columns * sizeof(float);
        offset += entry.bytes;
        tensors.emplace_back(name, entry);
    };
    const auto name_of_part = [&](std::size_t block, const std::string& module, const char* part) {
        return "base_model.model." + run.layout().tensor_name(block, module) + "." + part + ".weight";
    };
    const std::size_t blocks = run.config().blocks.size();
    for (std::size_t block = 0; block < blocks; ++block) {
        for (const auto& [module, update] : updates_of(run, block)) {
            add(name_of_part(block, module, "lora_A"), update.rank, update.columns);
            add(name_of_part(block, module, "lora_B"), update.rows, update.rank);
        }
    }
    AtomicFile out(file);
    out.write(make_safetensors_header(tensors, {{"format", "pt"}}));
    for (std::size_t block = 0; block < blocks; ++block) {
        for (const auto& [module, update] : updates_of(run, block)) {
            out.write(std::as_bytes(std::span(update.a)));
            out.write(std::as_bytes(std::span(update.b)));
        }
    }
    out.commit();
}

}  // namespace

void export_adapter(const FinetunedSource& run, const std::filesystem::path& output, const std::string& base) {
    const std::string name = run.path().string();
    if (!run.is_dense()) {
        throw InputError(
            name + " was trained with --train " + run.manifest().options.at("train").get<std::string>() +
            ", whose updates lie under the mask: an adapter cannot say so. Export the merged model, without "
            "--adapter");
    }
    if (run.trains_norms()) {
        throw InputError(name +
                         " has trained norms, which are no part of an adapter; export the merged model, without "
                         "--adapter");
    }
    const Json& options = run.manifest().options;
    const auto rank = options.at("rank").get<std::size_t>();
    const auto alpha = options.at("alpha").get<double>();
    std::set<std::string> modules;
    Json ranks = Json::object(), alphas = Json::object();
    for (const auto& [module, update] : updates_of(run, 0)) {
        const std::string name_in_config(short_name(module));
        modules.insert(name_in_config);
        if (update.rank == rank) continue;
        // Of several matrices in one: the same alpha / rank.
        ranks[name_in_config] = update.rank;
        alphas[name_in_config] = alpha * static_cast<double>(update.rank) / static_cast<double>(rank);
    }
    Json targets = Json::array();
    for (const std::string& module : modules) targets.push_back(module);
    const Json config = {{"peft_type", "LORA"},
                         {"task_type", "CAUSAL_LM"},
                         {"base_model_name_or_path", base},
                         {"r", rank},
                         {"lora_alpha", alpha},
                         {"lora_dropout", options.contains("dropout") ? options.at("dropout").get<double>() : 0.0},
                         {"target_modules", targets},
                         {"rank_pattern", ranks},
                         {"alpha_pattern", alphas},
                         {"bias", "none"},
                         {"fan_in_fan_out", false},
                         {"inference_mode", true}};
    write_folder_at_once(output, "an adapter of " + name, [&](const std::filesystem::path& partial) {
        write_tensors(run, partial / "adapter_model.safetensors");
        write_text_atomically(partial / "adapter_config.json", config.dump(2) + "\n");
    });
}

}  // namespace espalier
