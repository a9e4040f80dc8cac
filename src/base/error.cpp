#include "src/base/error.h"

#include <algorithm>
#include <filesystem>
#include <new>

namespace espalier {

Error as_error(const std::exception_ptr& failure) {
    try {
        std::rethrow_exception(failure);
    } catch (const Error& error) {
        return error;
    } catch (const std::filesystem::filesystem_error& error) {
        return InputError(error.path1().string() + ": " + error.code().message());
    } catch (const std::bad_alloc&) {
        return ResourceError("out of host memory; use fewer samples, a shorter sequence, or more ranks");
    } catch (const std::exception& error) {
        return BugError(std::string("internal error: ") + error.what());
    } catch (...) {
        return BugError("internal error: an exception of an unknown type");
    }
}

std::string error_line(const Error& error, std::optional<int> rank) {
    constexpr std::size_t head = 600, tail = 250;
    std::string sentence = error.what();
    if (sentence.size() > head + tail) {
        sentence = sentence.substr(0, head) + " ... " + sentence.substr(sentence.size() - tail);
    }
    const auto is_control = [](char c) { return static_cast<unsigned char>(c) < 32 || c == 127; };
    std::replace_if(sentence.begin(), sentence.end(), is_control, '?');
    return "espalier: " + (rank ? "rank " + std::to_string(*rank) + ": " : std::string()) + sentence + "\n";
}

}  // namespace espalier
