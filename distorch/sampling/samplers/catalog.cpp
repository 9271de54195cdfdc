#include <fmt/format.h>
#include <fmt/ranges.h>

#include "distorch/base/error.h"
#include "distorch/base/run_token.h"
#include "distorch/sampling/samplers.h"

namespace distorch::sampling {

// One line a sampler: its function, defined in the file of its family ...
SamplerFunction sample_euler;
SamplerFunction sample_euler_cfg_pp;
SamplerFunction sample_euler_cfg_pp_alternative;
SamplerFunction sample_euler_ancestral;
SamplerFunction sample_euler_ancestral_cfg_pp;
SamplerFunction sample_heun;
SamplerFunction sample_heunpp2;
SamplerFunction sample_exp_heun_2_x0;
SamplerFunction sample_exp_heun_2_x0_sde;
SamplerFunction sample_dpm_2;
SamplerFunction sample_dpm_2_ancestral;
SamplerFunction sample_lms;
SamplerFunction sample_dpm_fast;
SamplerFunction sample_dpm_adaptive;
SamplerFunction sample_dpmpp_2s_ancestral;
SamplerFunction sample_dpmpp_2s_ancestral_cfg_pp;
SamplerFunction sample_dpmpp_sde;
SamplerFunction sample_dpmpp_2m;
SamplerFunction sample_dpmpp_2m_cfg_pp;
SamplerFunction sample_dpmpp_2m_sde;
SamplerFunction sample_dpmpp_2m_sde_heun;
SamplerFunction sample_dpmpp_3m_sde;
SamplerFunction sample_ddpm;
SamplerFunction sample_lcm;
SamplerFunction sample_lcm_upscale;
SamplerFunction sample_ipndm;
SamplerFunction sample_ipndm_v;
SamplerFunction sample_deis;
SamplerFunction sample_res_multistep;
SamplerFunction sample_res_multistep_cfg_pp;
SamplerFunction sample_res_multistep_ancestral;
SamplerFunction sample_res_multistep_ancestral_cfg_pp;
SamplerFunction sample_gradient_estimation;
SamplerFunction sample_gradient_estimation_cfg_pp;
SamplerFunction sample_er_sde;
SamplerFunction sample_seeds_2;
SamplerFunction sample_seeds_3;
SamplerFunction sample_sa_solver;
SamplerFunction sample_sa_solver_pece;
SamplerFunction sample_uni_pc;
SamplerFunction sample_uni_pc_bh2;

// ... and its name. The "_gpu" names differ from the plain ones only in where the reference draws
// its noise; here all noise is drawn on the CPU.
const std::vector<Sampler>& samplers() {
  static const std::vector<Sampler> all = {
      {"euler", sample_euler},
      {"euler_cfg_pp", sample_euler_cfg_pp},
      {"euler_ancestral", sample_euler_ancestral},
      {"euler_ancestral_cfg_pp", sample_euler_ancestral_cfg_pp},
      {"heun", sample_heun},
      {"heunpp2", sample_heunpp2},
      {"exp_heun_2_x0", sample_exp_heun_2_x0},
      {"exp_heun_2_x0_sde", sample_exp_heun_2_x0_sde},
      {"dpm_2", sample_dpm_2},
      {"dpm_2_ancestral", sample_dpm_2_ancestral},
      {"lms", sample_lms},
      {"dpm_fast", sample_dpm_fast},
      {"dpm_adaptive", sample_dpm_adaptive},
      {"dpmpp_2s_ancestral", sample_dpmpp_2s_ancestral},
      {"dpmpp_2s_ancestral_cfg_pp", sample_dpmpp_2s_ancestral_cfg_pp},
      {"dpmpp_sde", sample_dpmpp_sde},
      {"dpmpp_sde_gpu", sample_dpmpp_sde},
      {"dpmpp_2m", sample_dpmpp_2m},
      {"dpmpp_2m_cfg_pp", sample_dpmpp_2m_cfg_pp},
      {"dpmpp_2m_sde", sample_dpmpp_2m_sde},
      {"dpmpp_2m_sde_gpu", sample_dpmpp_2m_sde},
      {"dpmpp_2m_sde_heun", sample_dpmpp_2m_sde_heun},
      {"dpmpp_2m_sde_heun_gpu", sample_dpmpp_2m_sde_heun},
      {"dpmpp_3m_sde", sample_dpmpp_3m_sde},
      {"dpmpp_3m_sde_gpu", sample_dpmpp_3m_sde},
      {"ddpm", sample_ddpm},
      {"lcm", sample_lcm},
      {"ipndm", sample_ipndm},
      {"ipndm_v", sample_ipndm_v},
      {"deis", sample_deis},
      {"res_multistep", sample_res_multistep},
      {"res_multistep_cfg_pp", sample_res_multistep_cfg_pp},
      {"res_multistep_ancestral", sample_res_multistep_ancestral},
      {"res_multistep_ancestral_cfg_pp", sample_res_multistep_ancestral_cfg_pp},
      {"gradient_estimation", sample_gradient_estimation},
      {"gradient_estimation_cfg_pp", sample_gradient_estimation_cfg_pp},
      {"er_sde", sample_er_sde},
      {"seeds_2", sample_seeds_2},
      {"seeds_3", sample_seeds_3},
      {"sa_solver", sample_sa_solver},
      {"sa_solver_pece", sample_sa_solver_pece},
      {"ddim", sample_euler, true},
      {"uni_pc", sample_uni_pc},
      {"uni_pc_bh2", sample_uni_pc_bh2},
  };
  return all;
}

std::vector<std::string> sampler_names() {
  std::vector<std::string> names;
  for (const Sampler& sampler : samplers()) {
    names.emplace_back(sampler.name);
  }
  return names;
}

const Sampler& find_sampler(std::string_view name) {
  for (const Sampler& sampler : samplers()) {
    if (sampler.name == name) {
      return sampler;
    }
  }
  throw Error(ErrorKind::Usage, "sampler",
              fmt::format("'{}' is not one of {}", name, fmt::join(sampler_names(), ", ")));
}

const Sampler& alternative_euler_cfg_pp() {
  static const Sampler sampler = {"euler_cfg_pp_alternative", sample_euler_cfg_pp_alternative};
  return sampler;
}

const Sampler& lcm_upscale() {
  static const Sampler sampler = {"lcm_upscale", sample_lcm_upscale};
  return sampler;
}

void SamplerContext::report(const StepEvent& event) const {
  throw_if_interrupted();
  if (on_step) {
    on_step(event);
  }
}

}  // namespace distorch::sampling
