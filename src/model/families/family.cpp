#include "src/model/families/family.h"

#include "src/base/error.h"

#include <array>

namespace espalier {

// Each in the file of its name.
extern const Family llama, mistral, qwen2, qwen3, phi3, olmo2, smollm3, mistral3;

namespace {

constexpr std::array families = {&llama, &mistral, &qwen2, &qwen3, &phi3, &olmo2, &smollm3, &mistral3};

}  // namespace

const Family* find_family(std::string_view model_type) {
    for (const Family* const family : families) {
        if (family->model_type == model_type) return family;
    }
    return nullptr;
}

const Family& family_of(std::string_view model_type) {
    const Family* const family = find_family(model_type);
    require(family != nullptr, "a family that was found when the configuration was read");
    return *family;
}

std::string family_names() {
    std::string names;
    for (std::size_t i = 0; i < families.size(); ++i) {
        if (i > 0) names += i + 1 == families.size() ? " and " : ", ";
        names += families[i]->model_type;
    }
    return names;
}

}  // namespace espalier
