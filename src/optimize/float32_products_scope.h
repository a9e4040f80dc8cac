#pragma once
/// How a device multiplies float32 matrices while something is optimised.

#include "src/method/prune_options.h"

namespace espalier {

/// Products of float32 matrices are computed as `compute` says while it lives, and exactly afterwards.
class Float32ProductsScope {
  public:
    Float32ProductsScope(Device& device, RegionalCompute compute) : device_(device) {
        device.set_float32_products(compute == RegionalCompute::float32 ? Float32Products::exact
                                                                        : Float32Products::tf32);
    }
    Float32ProductsScope(const Float32ProductsScope&) = delete;
    Float32ProductsScope& operator=(const Float32ProductsScope&) = delete;
    ~Float32ProductsScope() { device_.set_float32_products(Float32Products::exact); }

  private:
    Device& device_;
};

}  // namespace espalier
