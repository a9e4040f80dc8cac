#include "src/plan/device_model.h"

#include "kernels/device.h"
#include "src/base/error.h"

#include <cctype>
#include <cmath>
#include <fstream>
#include <sstream>

namespace espalier {

namespace {

constexpr double tera = 1e12, giga = 1e9;

/// Measured by kernel_benchmark on LLaMA-2-7B's shapes (docs/performance.md).
DeviceModel h200() {
    DeviceModel model;
    model.name = "h200";
    model.origin =
        "measured on an H200, 2026-11-26 (docs/performance.md); network of an HGX board: NVLink 4, 400 Gb/s a GPU";
    model.memory_bytes = 141 * std::size_t{1'000'000'000};
    model.multiprocessors = 132;
    model.sixteen_bit = {665 * tera, 580 * tera, 229 * tera, 165 * tera};
    model.tf32 = {343 * tera, 340 * tera, 103 * tera, 71 * tera};
    model.float32 = {48 * tera, 44 * tera, 22 * tera, 16 * tera};
    model.memory_bandwidth = 4150 * giga;
    model.host_link = 50 * giga;
    model.operation_seconds = 3e-6;
    model.file_bandwidth = 2 * giga;
    model.network = {{5e-6, 350 * giga}, {1e-5, 45 * giga}, 8, 1e-6};
    return model;
}

/// The same multiprocessors at the same rate; memory slower by the ratio of the data sheets.
DeviceModel h100() {
    DeviceModel model = h200();
    model.name = "h100";
    model.origin =
        "H100 SXM: products as measured on an H200 (same multiprocessors), memory by the data sheets' ratio 3.35 / 4.8";
    model.memory_bytes = 80 * std::size_t{1'000'000'000};
    model.memory_bandwidth *= 3.35 / 4.8;
    return model;
}

DeviceModel gh200() {
    DeviceModel model = h100();
    model.name = "gh200";
    model.origin =
        "GH200: an H100 with 96 GB, memory by the data sheets' ratio 4.0 / 4.8, NVLink-C2C to the host; four a "
        "machine, 150 GB/s NVLink between two, 200 Gb/s a GPU";
    model.memory_bytes = 96 * std::size_t{1'000'000'000};
    model.memory_bandwidth = h200().memory_bandwidth * 4.0 / 4.8;
    model.host_link = 350 * giga;
    model.network.ranks_per_machine = 4;
    model.network.inside = {5e-6, 120 * giga};
    model.network.between = {1e-5, 22 * giga};
    return model;
}

/// Rates of an H200 times the ratio of the data sheets: 312 / 989 in 16 bits, 156 / 495 as TF32, 2.04 / 4.8 for memory.
DeviceModel a100() {
    DeviceModel model = h200();
    model.name = "a100";
    model.origin = "A100 SXM 80 GB: an H200's measured shares of the peaks times the A100's data sheet; not measured";
    model.memory_bytes = 80 * std::size_t{1'000'000'000};
    model.multiprocessors = 108;
    const auto scale = [](ProductRates rates, double factor, double of_attention) {
        return ProductRates{rates.linear * factor, rates.weight_gradient * factor, rates.attention * of_attention,
                            rates.attention_backward * of_attention};
    };
    // Attention uses mma instructions, of which an H200 runs only 60 % of its peak and an A100 all.
    model.sixteen_bit = scale(model.sixteen_bit, 312.0 / 989, 0.5);
    model.tf32 = scale(model.tf32, 156.0 / 495, 0.5);
    model.float32 = scale(model.float32, 19.5 / 67, 19.5 / 67);
    model.memory_bandwidth *= 2.04 / 4.8;
    model.host_link = 24 * giga;
    model.network = {{5e-6, 230 * giga}, {1e-5, 22 * giga}, 8, 1e-6};
    return model;
}

DeviceModel a100_40gb() {
    DeviceModel model = a100();
    model.name = "a100-40gb";
    model.origin = "A100 SXM 40 GB: as a100, memory by the data sheets' ratio 1.555 / 2.04";
    model.memory_bytes = 40 * std::size_t{1'000'000'000};
    model.memory_bandwidth *= 1.555 / 2.04;
    model.network.ranks_per_machine = 4;
    return model;
}

/// Two cores of a server with AVX2.
DeviceModel cpu() {
    DeviceModel model;
    model.name = "cpu";
    model.origin =
        "two cores of an AMD EPYC (Zen 3), docs/performance.md; measure yours: espalier doctor --device cpu --rates "
        "FILE";
    model.is_gpu = false;
    model.memory_bytes = std::size_t{16} << 30;
    model.float32 = {125 * giga, 115 * giga, 40 * giga, 40 * giga};
    model.sixteen_bit = model.tf32 = model.float32;
    model.memory_bandwidth = 15 * giga;
    model.masking_rate = 6e7;
    model.host_link = 8 * giga;
    model.operation_seconds = 4e-6;
    model.file_bandwidth = giga / 2;
    model.network = {{2e-6, 4 * giga}, {2e-5, giga}, 8, 1e-6};
    return model;
}

std::vector<DeviceModel> all_models() {
    std::vector<DeviceModel> models = {h100(), h200(), gh200(), a100(), a100_40gb(), cpu()};
    for (DeviceModel& model : models) {
        if (model.is_gpu) model.reserved_bytes = reserved_gpu_bytes(model.memory_bytes);
    }
    return models;
}

Json rates_json(const ProductRates& rates) {
    return {{"linear", rates.linear},
            {"weight_gradient", rates.weight_gradient},
            {"attention", rates.attention},
            {"attention_backward", rates.attention_backward}};
}

/// Fields of a rates file, each of which must be a number above zero.
class Fields {
  public:
    Fields(const Json& json, std::string place) : json_(json), place_(std::move(place)) {
        if (!json.is_object()) throw InputError(place_ + " is not a JSON object");
    }
    double number(const char* name, bool zero_allowed = false) const {
        const Json* found = json_.find(name);
        const double value = found != nullptr && found->is_number() ? found->get<double>() : -1;
        if (!std::isfinite(value) || value < 0 || (value == 0 && !zero_allowed)) {
            throw InputError(place_ + ": field \"" + name + "\" is not a number above zero");
        }
        return value;
    }
    std::size_t whole(const char* name, bool zero_allowed = false) const {
        return static_cast<std::size_t>(number(name, zero_allowed));
    }
    std::string text(const char* name) const {
        const Json* found = json_.find(name);
        if (found == nullptr || !found->is_string())
            throw InputError(place_ + ": field \"" + name + "\" is not a text");
        return found->get<std::string>();
    }
    Fields inside(const char* name) const {
        const Json* found = json_.find(name);
        if (found == nullptr) throw InputError(place_ + ": field \"" + name + "\" is missing");
        return {*found, place_ + ": field \"" + name + "\""};
    }
    ProductRates rates(const char* name) const {
        const Fields fields = inside(name);
        return {fields.number("linear"), fields.number("weight_gradient"), fields.number("attention"),
                fields.number("attention_backward")};
    }
    LinkModel link(const char* name) const {
        const Fields fields = inside(name);
        return {fields.number("latency", true), fields.number("bandwidth")};
    }

  private:
    const Json& json_;
    std::string place_;
};

}  // namespace

Json DeviceModel::to_json() const {
    const auto link = [](const LinkModel& model) {
        return Json{{"latency", model.latency}, {"bandwidth", model.bandwidth}};
    };
    return {{"format", "espalier-rates"},
            {"version", 1},
            {"name", name},
            {"origin", origin},
            {"kind", is_gpu ? "gpu" : "cpu"},
            {"memory_bytes", memory_bytes},
            {"reserved_bytes", reserved_bytes},
            {"multiprocessors", multiprocessors},
            {"sixteen_bit", rates_json(sixteen_bit)},
            {"tf32", rates_json(tf32)},
            {"float32", rates_json(float32)},
            {"memory_bandwidth", memory_bandwidth},
            {"masking_rate", masking_rate},
            {"host_link", host_link},
            {"operation_seconds", operation_seconds},
            {"file_bandwidth", file_bandwidth},
            {"network",
             {{"inside", link(network.inside)},
              {"between", link(network.between)},
              {"ranks_per_machine", network.ranks_per_machine},
              {"message_overhead", network.message_overhead}}}};
}

DeviceModel DeviceModel::from_json(const Json& json, const std::string& file) {
    const Fields fields(json, file);
    if (fields.text("format") != "espalier-rates" || fields.whole("version") != 1) {
        throw InputError(file + ": not rates of version 1 as `espalier doctor --rates FILE` writes them");
    }
    DeviceModel model;
    model.name = fields.text("name");
    model.origin = fields.text("origin");
    model.is_gpu = fields.text("kind") == "gpu";
    model.memory_bytes = fields.whole("memory_bytes");
    model.reserved_bytes = fields.whole("reserved_bytes", true);
    model.multiprocessors = fields.whole("multiprocessors");
    model.sixteen_bit = fields.rates("sixteen_bit");
    model.tf32 = fields.rates("tf32");
    model.float32 = fields.rates("float32");
    model.memory_bandwidth = fields.number("memory_bandwidth");
    model.masking_rate = fields.number("masking_rate");
    model.host_link = fields.number("host_link");
    model.operation_seconds = fields.number("operation_seconds", true);
    model.file_bandwidth = fields.number("file_bandwidth");
    const Fields network = fields.inside("network");
    model.network = {network.link("inside"), network.link("between"), network.whole("ranks_per_machine"),
                     network.number("message_overhead", true)};
    return model;
}

std::vector<std::string> device_model_names() {
    std::vector<std::string> names;
    for (const DeviceModel& model : all_models()) names.push_back(model.name);
    return names;
}

DeviceModel device_model(std::string_view name) {
    std::string known;
    std::string lower(name);
    for (char& letter : lower) letter = static_cast<char>(std::tolower(static_cast<unsigned char>(letter)));
    for (DeviceModel& model : all_models()) {
        if (model.name == lower) return std::move(model);
        known += (known.empty() ? "" : ", ") + model.name;
    }
    throw InputError("--gpu '" + std::string(name) + "' is not one of " + known +
                     "; others: --rates FILE, which `espalier doctor --rates FILE` writes on such a machine");
}

DeviceModel read_device_model(const std::filesystem::path& file) {
    std::ifstream stream(file);
    std::ostringstream text;
    if (!stream || !(text << stream.rdbuf())) throw InputError("--rates " + file.string() + " cannot be read");
    return DeviceModel::from_json(parse_strict_json(text.str(), file.string()), file.string());
}

}  // namespace espalier
