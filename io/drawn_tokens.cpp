#include "io/drawn_tokens.h"

#include "io/checksum.h"
#include "io/hdf5_handle.h"
#include "src/base/error.h"
#include "src/base/json.h"

#include <charconv>
#include <limits>
#include <string_view>

namespace espalier {

namespace {

constexpr const char* recipe_attribute = "drawn";

std::string text_of(const DrawingRecipe& recipe) {
    Json json = Json::object();
    for (const auto& [name, value] : recipe) json[name] = value;
    return json.dump();
}

TokenTable table_of(std::size_t rows, std::size_t columns, std::span<const std::int32_t> ids,
                    const std::string& recipe) {
    TokenTable table{rows, columns, {ids.begin(), ids.end()}, {}};
    const auto bytes = std::as_bytes(ids);
    std::string all = recipe + "\n";
    all.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    table.sha256 = sha256(all);
    return table;
}

/// The recipe and the table of a file.
std::pair<std::string, TokenTable> read(const std::filesystem::path& file, std::size_t vocabulary) {
    const TokenTable table = read_token_file(file, vocabulary, TokenPurpose::calibration);
    std::string recipe = Hdf5Reader(file).attribute("/input_ids", recipe_attribute);
    TokenTable with_recipe = table_of(table.rows, table.columns, table.ids, recipe);
    return {std::move(recipe), std::move(with_recipe)};
}

}  // namespace

TokenTable shape_of_drawn_tokens(const std::string& name) {
    constexpr std::size_t most = std::size_t{1} << 30;
    TokenTable table;
    const char *const begin = name.data() + std::string_view("self:").size(), *const end = name.data() + name.size();
    const auto [times, bad_rows] = std::from_chars(begin, end, table.rows);
    const bool has_columns = bad_rows == std::errc() && times != end && *times == 'x';
    const auto [last, bad_columns] = std::from_chars(has_columns ? times + 1 : end, end, table.columns);
    if (!has_columns || bad_columns != std::errc() || last != end || table.rows == 0 || table.columns == 0 ||
        table.rows > most / table.columns) {
        throw InputError("'" + name + "' is not self:SAMPLESxTOKENS, such as self:128x2048, of at most " +
                         std::to_string(most) + " tokens");
    }
    table.ids.resize(table.rows * table.columns);
    return table;
}

TokenTable table_of_drawn_tokens(std::size_t rows, std::size_t columns, std::span<const std::int32_t> ids,
                                 const DrawingRecipe& recipe) {
    return table_of(rows, columns, ids, text_of(recipe));
}

std::optional<TokenTable> kept_tokens(const std::filesystem::path& folder, const DrawingRecipe& recipe,
                                      std::size_t vocabulary) {
    const std::filesystem::path file = folder / RunFolder::calibration_file;
    std::error_code unreadable;
    if (!std::filesystem::exists(file, unreadable)) return std::nullopt;
    auto [of_file, table] = read(file, vocabulary);
    if (of_file != text_of(recipe)) return std::nullopt;
    return std::move(table);
}

TokenTable kept_tokens(const std::filesystem::path& folder, std::size_t vocabulary) {
    return read(folder / RunFolder::calibration_file, vocabulary).second;
}

FileRecord keep_drawn_tokens(const RunFolder& run, const TokenTable& table, const DrawingRecipe& recipe) {
    constexpr std::size_t any_vocabulary = std::numeric_limits<std::int32_t>::max();
    if (!kept_tokens(run.path(), recipe, any_vocabulary)) {
        write_token_file(run.path() / RunFolder::calibration_file, table.rows, table.columns, table.ids,
                         {{recipe_attribute, text_of(recipe)}});
    }
    return run.record_of(RunFolder::calibration_file);
}

}  // namespace espalier
