#include "src/model/block_weights.h"

namespace espalier {

BlockTensor::BlockTensor(Device& device, const BlockLayout& layout, DType dtype, const char* name)
    : storage_(device.make_tensor(dtype, 1, layout.weights(), name)) {
    for (const MatrixShape& shape : layout.matrices()) {
        matrices_.push_back({storage_.view().data + shape.offset * bytes_of(dtype), dtype, shape.rows, shape.columns});
    }
}

BlockWeights::BlockWeights(Device& device, const BlockLayout& layout, DType dtype, const char* name)
    : matrices(device, layout, dtype, name) {
    for (const VectorShape& vector : layout.vectors()) {
        vectors_.push_back(device.make_tensor(DType::f32, 1, vector.size, name));
    }
    for (const MatrixShape& shape : layout.matrices()) biases_.push_back(shape.bias);
}

Projection BlockWeights::projection(LinearLayer layer) const {
    const std::optional<BlockVector>& bias = biases_[index_of(layer)];
    return {matrices.matrix(layer), bias ? vector(*bias) : TensorView{}};
}

}  // namespace espalier
