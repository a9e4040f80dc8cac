#include "tests/emulation/settings.h"

#include "tests/emulation/failure.h"

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <string_view>

namespace espalier::emulation {

namespace {

std::string_view variable(const char* name) {
    const char* const value = std::getenv(name);
    return value == nullptr ? std::string_view() : std::string_view(value);
}

template <typename Number>
Number number_of(std::string_view text, const char* name) {
    Number number{};
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
    if (error != std::errc() || end != text.data() + text.size()) {
        fail(std::string(name) + "=" + std::string(variable(name)) + ": \"" + std::string(text) + "\" is not a number");
    }
    return number;
}

void read_order(Settings& settings) {
    constexpr const char* name = "ESPALIER_EMULATION_ORDER";
    const std::string_view text = variable(name), order = text.substr(0, text.find(':'));
    if (order.size() < text.size()) settings.seed = number_of<std::uint64_t>(text.substr(order.size() + 1), name);
    if (order == "reverse") {
        settings.order = Order::reverse;
    } else if (order == "greedy") {
        settings.order = Order::greedy;
    } else if (order == "random") {
        settings.order = Order::random;
    } else if (!order.empty() && order != "forward") {
        fail(std::string(name) + "=" + std::string(text) + ": forward, reverse, greedy[:seed] or random[:seed]");
    }
}

void read_streams(Settings& settings) {
    const std::string_view text = variable("ESPALIER_EMULATION_STREAMS");
    if (!text.empty() && text != "eager" && text != "lazy") {
        fail("ESPALIER_EMULATION_STREAMS=" + std::string(text) + ": eager or lazy");
    }
    settings.lazy_streams = text == "lazy";
}

void read_fault(Settings& settings) {
    constexpr const char* name = "ESPALIER_EMULATED_NCCL_FAULT";
    std::string_view text = variable(name);
    const auto next = [&] {
        const std::string_view part = text.substr(0, text.find(':'));
        text.remove_prefix(std::min(text.size(), part.size() + 1));
        return part;
    };
    settings.nccl_fault.call = next();
    if (!text.empty()) settings.nccl_fault.calls_until = number_of<int>(next(), name);
    if (!text.empty()) settings.nccl_fault.rank = number_of<int>(next(), name);
}

void read_visible_gpus(Settings& settings) {
    constexpr const char* name = "CUDA_VISIBLE_DEVICES";
    std::string_view text = variable(name);
    while (!text.empty()) {
        const std::size_t comma = std::min(text.find(','), text.size());
        settings.visible_gpus.push_back(number_of<int>(text.substr(0, comma), name));
        text.remove_prefix(std::min(comma + 1, text.size()));
    }
    if (!settings.visible_gpus.empty()) settings.gpus = static_cast<int>(settings.visible_gpus.size());
}

Settings from_environment() {
    Settings settings;
    read_order(settings);
    read_streams(settings);
    read_fault(settings);
    read_visible_gpus(settings);
    for (const char* const name : {"OMPI_COMM_WORLD_LOCAL_SIZE", "ESPALIER_EMULATED_GPUS"}) {
        const auto text = variable(name);
        if (!text.empty() && settings.visible_gpus.empty()) settings.gpus = number_of<int>(text, name);
    }
    constexpr const char* memory = "ESPALIER_EMULATED_GPU_MEMORY";
    if (const auto text = variable(memory); !text.empty()) settings.gpu_memory = number_of<std::size_t>(text, memory);
    constexpr const char* shared = "ESPALIER_EMULATED_SHARED_MEMORY";
    if (const auto text = variable(shared); !text.empty())
        settings.shared_memory = number_of<std::size_t>(text, shared);
    return settings;
}

}  // namespace

Settings& settings() {
    static Settings the_settings = from_environment();
    return the_settings;
}

void fail(const std::string& sentence) {
    std::fprintf(stderr, "emulation: %s\n", sentence.c_str());
    std::fflush(stderr);
    std::abort();
}

}  // namespace espalier::emulation
