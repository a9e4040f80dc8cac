#include "src/model/block_weights.h"

namespace espalier {

BlockTensor::BlockTensor(Device& device, const BlockLayout& layout, DType dtype)
    : storage_(device.make_tensor(dtype, 1, layout.weights())) {
    for (const LinearLayer layer : all_linear_layers) {
        const MatrixShape& shape = layout.matrix(layer);
        matrices_[index_of(layer)] = {storage_.view().data + shape.offset * bytes_of(dtype), dtype, shape.rows,
                                      shape.columns};
    }
}

BlockWeights::BlockWeights(Device& device, const BlockLayout& layout, DType dtype) : matrices(device, layout, dtype) {
    for (const VectorShape& vector : layout.vectors()) {
        vectors_[static_cast<std::size_t>(vector.vector)] = device.make_tensor(DType::f32, 1, vector.size);
    }
}

}  // namespace espalier
