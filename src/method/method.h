#pragma once
/// A pruning method as three choices: how weights are scored, whether the kept ones make up for the removed ones, and
/// whether the block is optimised afterwards. The published methods are six of the compositions,
/// and `reconstruct` is the one that leaves the best models.

#include <string>
#include <string_view>

namespace espalier {

/// What decides which weights of a group or row go: |W|; |W| times the norm of its input (Wanda); |W| times that norm
/// plus the regional gradient (Wanda++); or the error that SparseGPT's sweep would make at that moment, which only its
/// compensation knows.
enum class Score { magnitude, wanda, rgs, sparsegpt };

/// What the kept weights do when others are removed: nothing, or SparseGPT's sweep.
enum class Compensation { none, sparsegpt };

/// What follows: nothing, rounds of regional optimisation (Wanda++ §4.2), or a reconstruction of the block's outputs,
/// which trains the weights that are left for some epochs.
enum class Optimization { none, regional, reconstruction };

struct Method {
    Score score = Score::wanda;
    Compensation compensation = Compensation::none;
    Optimization optimization = Optimization::none;

    bool uses_input_norms() const { return score == Score::wanda || score == Score::rgs; }
    bool uses_regional_gradient() const { return score == Score::rgs; }
    bool compensates() const { return compensation != Compensation::none; }
    bool optimises() const { return optimization != Optimization::none; }
    bool optimises_regionally() const { return optimization == Optimization::regional; }
    bool reconstructs() const { return optimization == Optimization::reconstruction; }
    /// The sweep chooses its mask only once, from dense weights: rounds of optimisation keep it. So does a
    /// reconstruction.
    bool chooses_mask_once() const { return score == Score::sparsegpt || reconstructs(); }
    /// Kept weights stay as they were.
    bool only_removes() const { return !compensates() && !optimises(); }

    bool operator==(const Method&) const = default;

    static const Method magnitude, wanda, sparsegpt, rgs, ro, wanda_plus_plus, reconstruct;
};

inline constexpr Method Method::magnitude = {Score::magnitude, Compensation::none, Optimization::none};
inline constexpr Method Method::wanda = {Score::wanda, Compensation::none, Optimization::none};
inline constexpr Method Method::sparsegpt = {Score::sparsegpt, Compensation::sparsegpt, Optimization::none};
inline constexpr Method Method::rgs = {Score::rgs, Compensation::none, Optimization::none};
inline constexpr Method Method::ro = {Score::wanda, Compensation::none, Optimization::regional};
inline constexpr Method Method::reconstruct = {Score::sparsegpt, Compensation::sparsegpt, Optimization::reconstruction};
inline constexpr Method Method::wanda_plus_plus = {Score::rgs, Compensation::none, Optimization::regional};

/// The published name where there is one, else the parts: "rgs+sparsegpt+ro".
std::string name_of(const Method& method);
/// A name of the table above, or a score, then "+sparsegpt" for its compensation, then "+ro" or "+reconstruct". Throws
/// InputError with the names.
Method method_from_name(std::string_view name);

}  // namespace espalier
