#include "src/method/method.h"

#include "src/base/error.h"

#include <array>
#include <optional>
#include <utility>

namespace espalier {

namespace {

constexpr std::array<std::pair<Method, std::string_view>, 7> named = {{{Method::magnitude, "magnitude"},
                                                                       {Method::wanda, "wanda"},
                                                                       {Method::sparsegpt, "sparsegpt"},
                                                                       {Method::rgs, "rgs"},
                                                                       {Method::ro, "ro"},
                                                                       {Method::wanda_plus_plus, "wanda++"},
                                                                       {Method::reconstruct, "reconstruct"}}};
constexpr std::array<std::pair<Score, std::string_view>, 4> scores = {
    {{Score::magnitude, "magnitude"}, {Score::wanda, "wanda"}, {Score::rgs, "rgs"}, {Score::sparsegpt, "sparsegpt"}}};
constexpr std::string_view compensated = "+sparsegpt", optimised = "+ro", reconstructed = "+reconstruct";

std::optional<Method> named_method(std::string_view name) {
    for (const auto& [method, word] : named) {
        if (word == name) return method;
    }
    return {};
}

bool remove_suffix(std::string_view& name, std::string_view suffix) {
    if (!name.ends_with(suffix)) return false;
    name.remove_suffix(suffix.size());
    return true;
}

}  // namespace

std::string name_of(const Method& method) {
    for (const auto& [known, word] : named) {
        if (known == method) return std::string(word);
    }
    std::string name;
    for (const auto& [score, word] : scores) {
        if (score == method.score) name = word;
    }
    // SparseGPT's score is a part of its compensation.
    if (method.compensates() && method.score != Score::sparsegpt) name += compensated;
    if (method.optimises_regionally()) name += optimised;
    if (method.reconstructs()) name += reconstructed;
    return name;
}

Method method_from_name(std::string_view name) {
    if (const auto method = named_method(name)) return *method;
    std::string_view rest = name;
    const bool reconstructs = remove_suffix(rest, reconstructed);
    const bool optimises = !reconstructs && remove_suffix(rest, optimised);
    const bool compensates = remove_suffix(rest, compensated);
    std::optional<Method> method = named_method(rest);
    // What is added must not be there already.
    if (!method || method->optimises() || (compensates && method->compensates())) {
        std::string known;
        for (const auto& [value, word] : named) known += (known.empty() ? "" : ", ") + std::string(word);
        throw InputError("--method '" + std::string(name) + "' is not one of " + known +
                         ", nor a composition of them such as wanda+sparsegpt, rgs+sparsegpt+ro or wanda+reconstruct");
    }
    if (compensates) method->compensation = Compensation::sparsegpt;
    if (optimises) method->optimization = Optimization::regional;
    if (reconstructs) method->optimization = Optimization::reconstruction;
    return *method;
}

}  // namespace espalier
