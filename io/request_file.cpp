#include "io/request_file.h"

#include "io/checksum.h"
#include "io/file.h"
#include "io/hdf5_handle.h"
#include "src/base/error.h"
#include "src/base/json.h"

#include <algorithm>

namespace espalier {

namespace {

constexpr std::uint64_t most_tokens = std::uint64_t{1} << 33;
constexpr const char* how_to_make = "; make them with jobs/prepare_requests.py";

std::vector<std::int64_t> read_list(const Hdf5Reader& file, const std::string& source, const std::string& name) {
    if (!file.contains(name)) throw InputError(source + ": no dataset " + name + how_to_make);
    const std::vector<std::uint64_t> shape = file.integer_shape(name);
    if (shape.size() != 1) throw InputError(source + " " + name + ": one dimension is expected");
    constexpr std::uint64_t best_compression = 1032;  // of deflate
    if (shape[0] > most_tokens || shape[0] / best_compression > std::filesystem::file_size(source)) {
        throw InputError(source + " " + name + ": declares " + std::to_string(shape[0]) +
                         " numbers, more than a file of this size can hold");
    }
    std::vector<std::int64_t> values(static_cast<std::size_t>(shape[0]));
    if (!values.empty()) file.read_integers(name, values);
    return values;
}

/// Numbers from 0 to `end` - 1; others are what `otherwise` says.
std::vector<std::int32_t> read_numbers(const Hdf5Reader& file, const std::string& source, const std::string& name,
                                       std::size_t end, const std::string& what, const std::string& otherwise) {
    const std::vector<std::int64_t> values = read_list(file, source, name);
    std::vector<std::int32_t> numbers;
    numbers.reserve(values.size());
    for (std::size_t i = 0; i < values.size(); ++i) {
        if (values[i] < 0 || static_cast<std::uint64_t>(values[i]) >= end) {
            throw InputError(source + " " + name + ": " + what + " " + std::to_string(values[i]) + " at [" +
                             std::to_string(i) + "] is " + otherwise);
        }
        numbers.push_back(static_cast<std::int32_t>(values[i]));
    }
    return numbers;
}

std::vector<std::int32_t> read_ids(const Hdf5Reader& file, const std::string& source, const std::string& name,
                                   std::size_t vocabulary) {
    return read_numbers(
        file, source, name, vocabulary, "token id",
        "outside the model's vocabulary of " + std::to_string(vocabulary) + " (tokens made with another tokenizer?)");
}

/// Where the parts of a list begin that has `total` of `what`: none may be empty.
std::vector<std::size_t> read_begins(const Hdf5Reader& file, const std::string& source, const std::string& name,
                                     std::size_t total, const std::string& what) {
    const std::vector<std::int64_t> values = read_list(file, source, name);
    if (values.size() < 2) throw InputError(source + " " + name + ": holds no requests");
    std::vector<std::size_t> begins;
    for (std::size_t i = 0; i < values.size(); ++i) {
        const bool in_order = i == 0 ? values[i] == 0 : values[i] > values[i - 1];
        if (!in_order) {
            throw InputError(source + " " + name + ": " + std::to_string(values[i]) + " at [" + std::to_string(i) +
                             "]; places from 0 on are expected that grow, since no part is empty");
        }
        begins.push_back(static_cast<std::size_t>(values[i]));
    }
    if (begins.back() != total) {
        throw InputError(source + " " + name + ": ends with " + std::to_string(begins.back()) + ", but there are " +
                         std::to_string(total) + " " + what);
    }
    return begins;
}

void check_size(const std::string& source, const std::string& name, std::size_t found, std::size_t expected) {
    if (found == expected) return;
    throw InputError(source + " " + name + ": " + std::to_string(found) + " numbers; " + std::to_string(expected) +
                     " are expected");
}

std::vector<std::string> read_task_names(const Hdf5Reader& file, const std::string& source) {
    try {
        std::vector<std::string> names;
        for (const Json& name : parse_strict_json(file.attribute("/", "tasks"), source + ": attribute 'tasks'")) {
            names.push_back(name.get<std::string>());
            if (std::count(names.begin(), names.end(), names.back()) > 1) {
                throw InputError(source + ": two of its tasks are called '" + names.back() + "'");
            }
        }
        return names;
    } catch (const Json::Error&) {
        throw InputError(source + ": its attribute 'tasks' is not a JSON list of names" + how_to_make);
    }
}

void read_items(const Hdf5Reader& file, const std::string& source, RequestTable& table) {
    constexpr std::size_t most = std::size_t{1} << 31;
    table.tasks = read_task_names(file, source);
    for (auto* const lengths : {&table.characters, &table.bytes}) {
        const std::string name = lengths == &table.bytes ? "/bytes" : "/characters";
        *lengths = read_numbers(file, source, name, most, "length", "no length");
        check_size(source, name, lengths->size(), table.size());
    }
    table.item_begin = read_begins(file, source, "/item_begin", table.size(), "requests");
    const std::size_t items = table.item_begin.size() - 1;
    table.task = read_numbers(file, source, "/task", table.tasks.size(), "task",
                              "not one of the " + std::to_string(table.tasks.size()) + " that are named");
    check_size(source, "/task", table.task.size(), items);
    table.gold = read_numbers(file, source, "/gold", most, "choice", "no choice");
    check_size(source, "/gold", table.gold.size(), items);
    for (std::size_t i = 0; i < items; ++i) {
        const std::size_t choices = table.requests_of_item(i).size();
        if (static_cast<std::size_t>(table.gold[i]) < choices) continue;
        throw InputError(source + " /gold: choice " + std::to_string(table.gold[i]) + " at [" + std::to_string(i) +
                         "], but the item has " + std::to_string(choices));
    }
}

}  // namespace

RequestTable read_request_file(const std::filesystem::path& path, std::size_t vocabulary) {
    const std::string source = path.string();
    {
        const InputFile file(path);
        std::string beginning(static_cast<std::size_t>(std::min<std::uint64_t>(file.size(), 8)), '\0');
        file.read(0, std::as_writable_bytes(std::span(beginning)));
        if (beginning != "\x89HDF\r\n\x1a\n") {
            throw InputError(source + " is not an HDF5 file of requests" + how_to_make);
        }
    }
    const Hdf5Reader file(path);
    RequestTable table;
    table.context_ids = read_ids(file, source, "/context_ids", vocabulary);
    table.continuation_ids = read_ids(file, source, "/continuation_ids", vocabulary);
    table.context_begin = read_begins(file, source, "/context_begin", table.context_ids.size(), "tokens");
    table.continuation_begin =
        read_begins(file, source, "/continuation_begin", table.continuation_ids.size(), "tokens");
    if (table.context_begin.size() != table.continuation_begin.size()) {
        throw InputError(source + ": " + std::to_string(table.context_begin.size() - 1) + " contexts, but " +
                         std::to_string(table.continuation_begin.size() - 1) + " continuations");
    }
    read_items(file, source, table);
    table.sha256 = sha256_of_file(path);
    return table;
}

}  // namespace espalier
