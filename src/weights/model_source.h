#pragma once
/// Where the weights of a whole model come from: a Hugging Face folder, a run folder or a generator, block by block.

#include "kernels/device.h"
#include "src/base/dtype.h"
#include "src/model/block_layout.h"
#include "src/model/block_weights.h"
#include "src/model/model_config.h"
#include "src/weights/block_source.h"

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace espalier {

/// Bytes of a config.json, at most.
inline constexpr std::uint64_t config_limit = 16u << 20;

class ModelSource : public BlockSource {
  public:
    const ModelConfig& config() const { return config_; }
    const BlockLayout& layout() const override { return layout_; }
    const std::string& config_text() const { return config_text_; }
    /// What was opened: the folder or name as given or, for a model's folder in the hub's cache, its snapshot.
    virtual std::filesystem::path path() const = 0;
    /// The folders that reading it needs: its own and, of a fine-tuned model, its base's.
    virtual std::vector<std::filesystem::path> folders() const { return {path()}; }
    /// Sentences about tolerated oddities, for the log.
    const std::vector<std::string>& warnings() const { return warnings_; }
    /// Sentences about what was chosen where there was a choice, for the log.
    const std::vector<std::string>& notes() const { return notes_; }
    /// Both as lines of the log: "note: …", "warning: …".
    std::vector<std::string> remarks() const;

    /// [rows, columns] and type of an outer tensor; the head is the embedding when the model ties them.
    virtual DType outer_dtype(OuterTensor tensor) const = 0;
    virtual std::size_t outer_rows(OuterTensor tensor) const = 0;
    /// Rows [first, first + rows) in the stored type.
    virtual void read_outer_rows(OuterTensor tensor, std::size_t first, std::size_t rows,
                                 std::span<std::byte> destination) const = 0;
    /// Throws InputError when the file of the outer tensors is not the one that the run's manifest names. Reads all of
    /// it: for one rank to call, once.
    virtual void verify_outer() const {}
    /// False when the head is the embedding.
    virtual bool has_own_head() const = 0;
    /// Names the model in manifests. For a Hugging Face folder it changes with config.json and with the tensors' names,
    /// types, shapes and places, not with their values; for a run also with the values.
    virtual std::string identity() const = 0;

    /// Rows that make about 4 MiB: the unit in which an outer tensor is read.
    std::size_t outer_panel_rows(OuterTensor tensor) const;
    std::size_t outer_row_bytes(OuterTensor tensor) const {
        return outer_columns(tensor) * bytes_of(outer_dtype(tensor));
    }
    std::size_t outer_columns(OuterTensor tensor) const {
        return tensor == OuterTensor::final_norm ? 1 : config_.hidden_size;
    }

  protected:
    ModelSource(std::string config_text, const std::string& config_source);

    std::vector<std::string> warnings_, notes_;

  private:
    std::string config_text_;
    ModelConfig config_;
    BlockLayout layout_;
};

/// Opens a Hugging Face folder, a run folder that Espalier has completed, or a synthetic model (SyntheticSource).
/// Throws InputError.
std::unique_ptr<ModelSource> open_model(const std::filesystem::path& path);

/// Throws InputError when `output` is a folder that reading `source`, the model of `option`, needs.
void refuse_output_in(const std::filesystem::path& output, const ModelSource& source, const std::string& option);

/// Throws InputError when the token file of `option` lies in the folder `output`, which --fresh would delete.
void refuse_tokens_in(const std::filesystem::path& output, const std::filesystem::path& tokens,
                      const std::string& option);

/// Throws InputError when the run in `output` read the model of `option` from another snapshot of the hub's cache than
/// `now`: the two may differ in what an identity does not hold, the weights' values. Other paths pass.
void refuse_other_snapshot(const std::filesystem::path& output, const std::filesystem::path& of_run,
                           const std::filesystem::path& now, const std::string& option);

/// What a model's path is called from any folder; what is made up has no place.
std::string lasting_name(const std::filesystem::path& path);

/// Waits for the weights and throws InputError naming tensor and block when one is not finite.
void refuse_nonfinite_weights(Device& device, const BlockLayout& layout, std::size_t block,
                              const BlockWeights& weights);

/// Throws NonFiniteError naming the tensor when rounding `weights` to `dtype` has made a value infinite (float16 ends
/// at 65504).
void refuse_overflow(Device& device, const BlockLayout& layout, DType dtype, std::size_t block,
                     const BlockWeights& weights);

}  // namespace espalier
