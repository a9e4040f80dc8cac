#include "src/evaluate/model_head.h"

#include "src/blocks/outer_rows.h"
#include "src/model/block_half.h"

#include <algorithm>

namespace espalier {

namespace {

constexpr std::size_t vocabulary_panel = 4096;
/// Of the head that lie on the device at a time. For every part the states of all passes are normed again: a tenth of a
/// part's work at most, where the head itself is hundredths of the whole.
constexpr std::size_t head_bytes_at_once = std::size_t{32} << 20;

}  // namespace

void ModelHead::run(IndexRange passes, const std::function<States()>& begin_part, const Consume& consume,
                    const SayProgress& progress) const {
    const std::size_t hidden = source_.config().hidden_size, vocabulary = source_.outer_rows(OuterTensor::head);
    const std::size_t panel = std::min(vocabulary_panel, vocabulary);
    const DType dtype = device_.compute_dtype(source_.outer_dtype(OuterTensor::head));
    const Tensor norm = device_.make_tensor(DType::f32, 1, hidden, "final norm");
    load_outer_rows(device_, group_, source_, OuterTensor::final_norm, 0, norm);
    const std::size_t panels = std::max<std::size_t>(1, head_bytes_at_once / (panel * hidden * bytes_of(dtype)));
    const Tensor head = device_.make_tensor(dtype, std::min(vocabulary, panels * panel), hidden, "head");
    const Tensor normed = device_.make_tensor(dtype, most_rows_, hidden, activations);
    const Tensor inverse_rms = device_.make_tensor(DType::f32, 1, most_rows_, activations);
    const Tensor logits = device_.make_tensor(DType::f32, most_rows_, panel, "logits");
    for (std::size_t first = 0; first < vocabulary; first += head.view().rows) {
        const TensorView part = head.view().row_range(0, std::min(head.view().rows, vocabulary - first));
        progress("head, vocabulary " + std::to_string(first) + " of " + std::to_string(vocabulary));
        for (std::size_t row = 0; row < part.rows; row += panel) {
            load_outer_rows(device_, group_, source_, OuterTensor::head, first + row,
                            part.row_range(row, std::min(part.rows, row + panel)));
        }
        const States states = begin_part();
        for (std::size_t pass = passes.begin; pass < passes.end; ++pass) {
            const TensorView of_pass = states(pass), x = normed.view().row_range(0, of_pass.rows);
            device_.rms_norm(of_pass, norm, source_.config().rms_norm_epsilon, x, inverse_rms);
            for (std::size_t row = 0; row < part.rows; row += panel) {
                const TensorView weights = part.row_range(row, std::min(part.rows, row + panel));
                const TensorView of_panel = {logits.view().data, DType::f32, of_pass.rows, weights.rows};
                device_.linear(x, weights, {}, of_panel);
                consume(pass, first + row, of_panel);
            }
        }
    }
}

}  // namespace espalier
