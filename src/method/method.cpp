#include "src/method/method.h"

#include "src/base/error.h"

#include <array>
#include <optional>
#include <utility>

namespace espalier {

namespace {

constexpr std::array<std::pair<Method, std::string_view>, 6> published = {{{Method::magnitude, "magnitude"},
                                                                           {Method::wanda, "wanda"},
                                                                           {Method::sparsegpt, "sparsegpt"},
                                                                           {Method::rgs, "rgs"},
                                                                           {Method::ro, "ro"},
                                                                           {Method::wanda_plus_plus, "wanda++"}}};
constexpr std::array<std::pair<Score, std::string_view>, 4> scores = {
    {{Score::magnitude, "magnitude"}, {Score::wanda, "wanda"}, {Score::rgs, "rgs"}, {Score::sparsegpt, "sparsegpt"}}};
constexpr std::string_view compensated = "+sparsegpt", optimised = "+ro";

std::optional<Method> published_method(std::string_view name) {
    for (const auto& [method, word] : published) {
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
    for (const auto& [known, word] : published) {
        if (known == method) return std::string(word);
    }
    std::string name;
    for (const auto& [score, word] : scores) {
        if (score == method.score) name = word;
    }
    // SparseGPT's score is a part of its compensation.
    if (method.compensates() && method.score != Score::sparsegpt) name += compensated;
    if (method.optimises()) name += optimised;
    return name;
}

Method method_from_name(std::string_view name) {
    if (const auto method = published_method(name)) return *method;
    std::string_view rest = name;
    const bool optimises = remove_suffix(rest, optimised), compensates = remove_suffix(rest, compensated);
    std::optional<Method> method = published_method(rest);
    // What is added must not be there already.
    if (!method || method->optimises() || (compensates && method->compensates())) {
        std::string known;
        for (const auto& [value, word] : published) known += (known.empty() ? "" : ", ") + std::string(word);
        throw InputError("--method '" + std::string(name) + "' is not one of " + known +
                         ", nor a composition of them such as wanda+sparsegpt or rgs+sparsegpt+ro");
    }
    if (compensates) method->compensation = Compensation::sparsegpt;
    if (optimises) method->optimization = Optimization::regional;
    return *method;
}

}  // namespace espalier
