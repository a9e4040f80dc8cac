#include "src/cli/output_file.h"

#include "src/base/error.h"

#include <unistd.h>

namespace espalier {

void refuse_unwritable(const std::string& option, const std::filesystem::path& file) {
    std::error_code error;  // what cannot be asked is not there
    const std::filesystem::path folder = file.has_parent_path() ? file.parent_path() : ".";
    if (!std::filesystem::is_directory(folder, error) || std::filesystem::is_directory(file, error) ||
        ::access(folder.c_str(), W_OK) != 0) {
        throw InputError("--" + option + " " + file.string() + ": no file can be written there");
    }
}

}  // namespace espalier
