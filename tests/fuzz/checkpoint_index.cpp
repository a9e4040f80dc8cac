// The input is model.safetensors.index.json of a folder with two good shards, of which both hold a tensor "a".
#include "io/checkpoint_folder.h"
#include "tests/fuzz/fuzz_target.h"

namespace {

using namespace espalier;

void write_shard(const ScratchFolder& folder, const std::string& file, const std::vector<std::string>& names) {
    std::vector<std::pair<std::string, SafetensorsEntry>> tensors;
    for (const std::string& name : names) tensors.emplace_back(name, SafetensorsEntry{"F32", {2}, 0, 8});
    folder.write(file, make_safetensors_header(tensors, {}) + std::string(8 * names.size(), '\1'));
}

const ScratchFolder& model_folder() {
    static const ScratchFolder folder;
    static const bool prepared = [] {
        folder.write("config.json", "{}");
        write_shard(folder, "model-00001-of-00002.safetensors", {"a"});
        write_shard(folder, "model-00002-of-00002.safetensors", {"a", "b"});
        return true;
    }();
    static_cast<void>(prepared);
    return folder;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const ScratchFolder& folder = model_folder();
    folder.write("model.safetensors.index.json", as_text(data, size));
    only_input_errors([&] {
        const CheckpointFolder checkpoint(folder.path());
        demand(checkpoint.sharded(), "an index means shards");
        for (const auto& [name, tensor] : checkpoint.tensors()) {
            demand(tensor.file < checkpoint.shard_names().size(), "a tensor's file");
            std::byte bytes[8];
            checkpoint.read(name, 0, bytes);
        }
        demand(checkpoint.identity().size() == 64, "an identity");
    });
    return 0;
}
