//! What crosses the bridge as values: defined here, and nowhere else. The C++ has its structs and enums from the
//! header that is made of this file.

use orcd_shared::sampling::SamplingParams;

/// Shared with `cuda/include/orcd/engine.h`.
#[allow(unreachable_pub, missing_docs)] // what the macro makes is pub and undocumented; this module is not
#[cxx::bridge(namespace = "orcd")]
pub mod shared {
    /// What a C++ error means for its caller.
    #[derive(Debug)]
    #[repr(u8)]
    enum ErrorKind {
        /// A precondition is broken; nothing was changed.
        #[cxx_name = "kInvalid"]
        Invalid = 0,
        /// Memory for this call is not there; the engine is as before.
        #[cxx_name = "kOutOfMemory"]
        OutOfMemory = 1,
        /// The device or its context is lost: the process must end.
        #[cxx_name = "kDevice"]
        Device = 2,
        /// The step was given up half-way, as asked.
        #[cxx_name = "kAbandoned"]
        Abandoned = 3,
    }

    /// Types of tensors by their numbers in the file format.
    #[derive(Debug)]
    #[repr(u32)]
    enum TensorType {
        #[cxx_name = "kF32"]
        F32 = 0,
        #[cxx_name = "kF16"]
        F16 = 1,
        #[cxx_name = "kQ4_0"]
        Q4_0 = 2,
        #[cxx_name = "kQ4_1"]
        Q4_1 = 3,
        #[cxx_name = "kQ5_0"]
        Q5_0 = 6,
        #[cxx_name = "kQ5_1"]
        Q5_1 = 7,
        #[cxx_name = "kQ8_0"]
        Q8_0 = 8,
        #[cxx_name = "kQ2_K"]
        Q2K = 10,
        #[cxx_name = "kQ3_K"]
        Q3K = 11,
        #[cxx_name = "kQ4_K"]
        Q4K = 12,
        #[cxx_name = "kQ5_K"]
        Q5K = 13,
        #[cxx_name = "kQ6_K"]
        Q6K = 14,
        #[cxx_name = "kIQ4_NL"]
        IQ4NL = 20,
        #[cxx_name = "kIQ4_XS"]
        IQ4XS = 23,
        #[cxx_name = "kBF16"]
        BF16 = 30,
        #[cxx_name = "kMXFP4"]
        MXFP4 = 39,
    }

    /// What a tensor is for.
    #[derive(Debug, Hash)]
    #[repr(u32)]
    enum TensorRole {
        /// (vocab, `d_model`)
        #[cxx_name = "kTokenEmbedding"]
        TokenEmbedding = 0,
        /// (`d_model`)
        #[cxx_name = "kOutputNorm"]
        OutputNorm = 1,
        /// (vocab, `d_model`); absent where it is the embedding.
        #[cxx_name = "kOutput"]
        Output = 2,
        /// (pairs), divides the rotation frequencies; with `LongRope` those of short sequences
        #[cxx_name = "kRopeFreqs"]
        RopeFreqs = 3,
        /// (`d_model`)
        #[cxx_name = "kAttnNorm"]
        AttnNorm = 4,
        /// (`n_heads` * `head_dim`, `d_model`)
        #[cxx_name = "kAttnQ"]
        AttnQ = 5,
        /// (`n_kv_heads` * `head_dim`, `d_model`)
        #[cxx_name = "kAttnK"]
        AttnK = 6,
        /// (`n_kv_heads` * `head_dim`, `d_model`)
        #[cxx_name = "kAttnV"]
        AttnV = 7,
        /// (`n_heads` * `head_dim`)
        #[cxx_name = "kAttnQBias"]
        AttnQBias = 8,
        /// (`n_kv_heads` * `head_dim`)
        #[cxx_name = "kAttnKBias"]
        AttnKBias = 9,
        /// (`n_kv_heads` * `head_dim`)
        #[cxx_name = "kAttnVBias"]
        AttnVBias = 10,
        /// (`d_model`, `n_heads` * `head_dim`)
        #[cxx_name = "kAttnOutput"]
        AttnOutput = 11,
        /// (`d_model`)
        #[cxx_name = "kFfnNorm"]
        FfnNorm = 12,
        /// (`d_ff`, `d_model`)
        #[cxx_name = "kFfnGate"]
        FfnGate = 13,
        /// (`d_ff`, `d_model`)
        #[cxx_name = "kFfnUp"]
        FfnUp = 14,
        /// (`d_model`, `d_ff`)
        #[cxx_name = "kFfnDown"]
        FfnDown = 15,
        /// (`d_model`)
        #[cxx_name = "kAttnOutputBias"]
        AttnOutputBias = 16,
        /// (`d_ff`)
        #[cxx_name = "kFfnGateBias"]
        FfnGateBias = 17,
        /// (`d_ff`)
        #[cxx_name = "kFfnUpBias"]
        FfnUpBias = 18,
        /// (`d_model`)
        #[cxx_name = "kFfnDownBias"]
        FfnDownBias = 19,
        /// (vocab)
        #[cxx_name = "kOutputBias"]
        OutputBias = 20,
        /// (`head_dim`), of each query head before its rotation
        #[cxx_name = "kAttnQNorm"]
        AttnQNorm = 21,
        /// (`head_dim`), likewise of each key head
        #[cxx_name = "kAttnKNorm"]
        AttnKNorm = 22,
        /// (`d_model`), of what attention adds
        #[cxx_name = "kPostAttnNorm"]
        PostAttnNorm = 23,
        /// (`d_model`), of what the feed-forward part adds
        #[cxx_name = "kPostFfnNorm"]
        PostFfnNorm = 24,
        /// (`n_experts`, `d_model`); with it matrices and biases of the feed-forward part are those of all experts, one
        /// after the other
        #[cxx_name = "kRouter"]
        Router = 25,
        /// (`n_experts`)
        #[cxx_name = "kRouterBias"]
        RouterBias = 26,
        /// (`n_heads`)
        #[cxx_name = "kAttnSinks"]
        AttnSinks = 27,
        /// (pairs), divides the rotation frequencies of long sequences
        #[cxx_name = "kLongRopeFreqs"]
        LongRopeFreqs = 28,
    }

    /// Which elements of a head are rotated together.
    #[derive(Debug)]
    #[repr(u32)]
    enum RopeStyle {
        /// (i, i + n/2)
        #[cxx_name = "kNeox"]
        Neox = 0,
        /// (2i, 2i + 1)
        #[cxx_name = "kInterleaved"]
        Interleaved = 1,
    }

    /// How rotations are stretched for contexts longer than those of the training.
    #[derive(Debug)]
    #[repr(u32)]
    enum RopeScaling {
        /// Not at all.
        #[cxx_name = "kNone"]
        None = 0,
        /// All frequencies are divided by the factor.
        #[cxx_name = "kLinear"]
        Linear = 1,
        /// Low frequencies are, high ones are not, those between in part (arXiv:2309.00071).
        #[cxx_name = "kYarn"]
        Yarn = 2,
        /// By divisors of their own for sequences that may become longer than the context of the training
        /// (arXiv:2402.13753).
        #[cxx_name = "kLongRope"]
        LongRope = 3,
    }

    /// What the two halves of a feed-forward part become together.
    #[derive(Debug)]
    #[repr(u32)]
    enum Activation {
        /// silu(gate) · up
        #[cxx_name = "kSwiGlu"]
        SwiGlu = 0,
        /// gelu(gate) · up, by the form with tanh
        #[cxx_name = "kGeGlu"]
        GeGlu = 1,
        /// x · sigmoid(1.702 · x) · (y + 1) of x = min(gate, 7), y = up within −7 .. 7
        #[cxx_name = "kClampedSwiGlu"]
        ClampedSwiGlu = 2,
    }

    /// Rotation of queries and keys.
    #[derive(Debug, Clone, Copy, PartialEq)]
    struct RopeSpec {
        /// Pairs that are rotated, those of a head's first values; 0: none.
        pairs: u32,
        /// Which elements are rotated together.
        style: RopeStyle,
        /// Base of the frequencies.
        base: f64,
        /// How they are stretched.
        scaling: RopeScaling,
        /// By how much; 1 without scaling.
        factor: f64,
        /// YaRN, `LongRoPE`: context of the training, tokens.
        original_context: u32,
        /// YaRN: turns in that context from which on a frequency is high.
        beta_fast: f64,
        /// YaRN: turns down to which it is low.
        beta_slow: f64,
        /// YaRN: whether the bounds between them are rounded to whole pairs.
        rounds_bounds: bool,
        /// Multiplies cosines and sines.
        attn_factor: f64,
        /// YaRN: what their own factor is divided by, as the multiplier of its logarithm; 0: nothing.
        log_multiplier: f64,
    }

    /// What attention has in some layers and not in others.
    #[derive(Debug, Clone, Copy, PartialEq)]
    struct LayerKind {
        /// Keys that a row sees, its own the last of them; 0: all up to its own.
        window: u32,
        /// How queries and keys are rotated.
        rope: RopeSpec,
    }

    /// A tensor in the weights image. Vectors have one row.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    struct TensorDesc {
        /// What it is.
        role: TensorRole,
        /// Its layer; 0 for tensors outside of layers.
        layer: u32,
        /// How its values are stored.
        #[cxx_name = "type"]
        ty: TensorType,
        /// Outputs of a product.
        rows: u64,
        /// Inputs: the file's fastest dimension.
        cols: u64,
        /// First byte in the image, a multiple of 256.
        offset: u64,
        /// Size, in the file and in the image: packing is bijective.
        bytes: u64,
    }

    /// Hyperparameters.
    #[derive(Debug, Clone, Copy, PartialEq)]
    struct ModelShape {
        /// Blocks.
        n_layers: u32,
        /// Width of the residual stream.
        d_model: u32,
        /// Width inside the feed-forward part.
        d_ff: u32,
        /// Query heads.
        n_heads: u32,
        /// Key and value heads.
        n_kv_heads: u32,
        /// Elements of a head.
        head_dim: u32,
        /// Tokens in the vocabulary.
        vocab: u32,
        /// Epsilon of RMSNorm.
        rms_eps: f32,
        /// Kinds of layers.
        kinds: [LayerKind; 2],
        /// Layers of the second kind: bit i % 64 of word i / 64 stands for layer i.
        second_kind: [u64; 16],
        /// Of the feed-forward parts.
        activation: Activation,
        /// Multiplies scores of attention; 0: 1 / sqrt(`head_dim`).
        attention_scale: f64,
        /// Soft cap of these scores; 0: none.
        attention_soft_cap: f32,
        /// Multiplies embeddings.
        embedding_scale: f32,
        /// Multiplies what attention and feed-forward parts add.
        residual_scale: f32,
        /// Multiplies logits.
        logit_scale: f32,
        /// Soft cap of the logits; 0: none.
        logit_soft_cap: f32,
        /// Queries at position p are multiplied by 1 + this · ln(1 + p / `query_scale_context`, rounded down); 0: not.
        query_scale: f64,
        /// See there.
        query_scale_context: u32,
        /// Experts of each feed-forward part; 0: it is one.
        n_experts: u32,
        /// Of these, how many a token takes.
        n_experts_used: u32,
        /// Multiplies their weights, which sum to one.
        expert_scale: f32,
    }

    /// Sizes and switches of an engine.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    struct EngineOptions {
        /// Sequences that may be open at once.
        slots: u32,
        /// Tokens per sequence.
        context: u32,
        /// Most tokens in one step.
        max_batch_tokens: u32,
        /// CPU threads of a step; 0 is one per core.
        threads: u32,
        /// Pages of KV memory in all; 0 is a whole context for each slot.
        kv_pages: u32,
        /// Debug: what is in pages that nobody holds is overwritten with what nobody can read unnoticed.
        poison: bool,
        /// Debug, CPU only: quantized weights times activations that are not quantized.
        float_activations: bool,
    }

    /// How a token is sampled: `SamplingParams`, whose documentation has the bounds.
    #[derive(Debug, Clone, Copy, PartialEq)]
    struct Sampling {
        /// 0: greedy.
        temperature: f32,
        /// 1: off.
        top_p: f32,
        /// 0: off.
        top_k: u32,
        /// 0: off.
        min_p: f32,
        /// 1: off.
        repetition_penalty: f32,
        /// 0: off.
        frequency_penalty: f32,
        /// 0: off.
        presence_penalty: f32,
        /// Which of several outputs of one request: the third word of the generator's counter.
        choice: u32,
        /// Key of the counter-based generator.
        seed: u64,
    }

    /// The next tokens of one sequence in a step.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    struct Run {
        /// The sequence.
        slot: u32,
        /// Its tokens that were processed before.
        start: u32,
        /// How many of the step's tokens; the runs' tokens lie one after the other.
        n_tokens: u32,
        /// Position of the sequence's first token of the output: what penalties count of it begins there.
        output_start: u32,
    }

    /// Positions in a page of the KV pool.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    struct PageRows {
        /// The page.
        page: u32,
        /// The first of them, 0 to 63.
        from: u32,
        /// The one behind the last, 1 to 64.
        to: u32,
    }

    /// What is added to a token's logit.
    #[derive(Debug, Clone, Copy, PartialEq)]
    struct TokenBias {
        /// The token.
        token: u32,
        /// Finite.
        bias: f32,
    }

    /// A token to be sampled.
    #[derive(Debug, Clone, Copy, PartialEq)]
    struct SampleRow {
        /// After which of the step's tokens; samples are in the order of their rows. A penalty counts the
        /// sequence's tokens up to this row.
        row: u32,
        /// Which of the step's masks, from 1; 0: any token may be sampled.
        mask: u32,
        /// Whether `Sampled` gets logprobs.
        logprobs: bool,
        /// How many of the most likely tokens it gets with theirs, at most `MAX_TOP_LOGPROBS`.
        top_logprobs: u32,
        /// The first of the step's biases that is for it.
        first_bias: u32,
        /// How many are, at most `kMostBiases`: those of different tokens, ids ascending.
        n_biases: u32,
        /// How.
        sampling: Sampling,
    }

    /// A token and the natural logarithm of its probability: that of the model's logits, before anything changes
    /// them.
    #[derive(Debug, Clone, Copy, PartialEq)]
    struct TokenLogprob {
        /// The token.
        token: u32,
        /// At most 0.
        logprob: f32,
    }

    /// What came of a [`SampleRow`].
    #[derive(Debug, Clone, Copy, PartialEq)]
    struct Sampled {
        /// The token, or `BROKEN_LOGITS`.
        token: u32,
        /// The token's logprob, if wanted; else 0.
        logprob: f32,
        /// The most likely tokens, as many as were wanted (and there are), the best first; zeros after them.
        top: [TokenLogprob; 20],
    }

    /// What a device says of itself in numbers.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    struct DeviceInfo {
        /// CUDA compute capability, "9.0" as 90; 0 on the CPU.
        compute: u32,
        /// CUDA runtime version, "13.0" as 130; 0 on the CPU.
        runtime_version: u32,
        /// Memory in all, bytes.
        memory_total: u64,
        /// Memory not taken now, bytes.
        memory_free: u64,
    }
}

impl From<SamplingParams> for shared::Sampling {
    fn from(params: SamplingParams) -> Self {
        Self {
            temperature: params.temperature,
            top_p: params.top_p,
            top_k: params.top_k,
            min_p: params.min_p,
            repetition_penalty: params.repetition_penalty,
            frequency_penalty: params.frequency_penalty,
            presence_penalty: params.presence_penalty,
            choice: params.choice,
            seed: params.seed,
        }
    }
}
