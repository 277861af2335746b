// One step of a cell, forward and backward, for the blocks of units that a thread owns. It connects the cell's struct
// with the arrays and is compiled once for each cell. normed.h does the same for cells with norms.

template <class C, class V> struct Steps {
    using S = Scalar<V>;
    static constexpr int W = lanes<V>, G = C::gates, N = C::states, E = C::vectors, K = C::kept;

    // The values of a block of units in one sequence, as the cell's struct takes them.
    struct Unit {
        V zx[G], zr[G], before[N], e[E + 1], keep[K];
        V after[N], d[N], de[E + 1];
    };

    static FN void load_vectors(const Sequence<V>& s, Size u, V* e) {
        for (int k = 0; k < E; k++) e[k] = load<V>((const S*)s.a.vectors + k * s.H + u * W, s.valid(u, s.H));
    }
    // Loads the states before a step. It loads h only if the cell or zoneout reads it and h is not projected.
    static FN void load_before(const Sequence<V>& s, Size step, Size b, Size u, V* before) {
        bool zero = s.cleared(s.time(step), b);
        const S* h = (C::direct || s.a.keep_h) && !s.a.w_hr && !zero ? s.h_before(step) : nullptr;
        before[0] = h ? load<V>(h + b * s.P + u * W, s.valid(u, s.P)) : V{};
        for (int k = 1; k < N; k++) before[k] = zero ? V{} : load<V>(s.state(k, step) + b * s.Hp + u * W);
    }
    static FN S* keep_of(const Sequence<V>& s, Size t, Size b, Size u) { return s.keep + (t * s.B + b) * s.keep_row + u * K * W; }

    static FN void load_gates(Forward<V>& f, typename Forward<V>::Own& own, const S* zx, Size b, Size i, Size block,
                              const V* bias, Unit& unit) {
        for (int g = 0; g < G; g++) {
            unit.zx[g] = load<V>(zx + b * own.width + ((block + i) * G + g) * W);
            unit.zr[g] = load<V>(own.z + b * own.z_row + (i * G + g) * W);
            if constexpr (C::split) unit.zr[g] += bias[g];
        }
    }
    // Loads the recurrent bias of a `split` cell; for other cells zx includes it.
    static FN void load_bias(const Sequence<V>& s, Size u, V* bias) {
        if constexpr (C::split)
            for (int g = 0; g < G; g++)
                bias[g] = s.a.b_hh ? load<V>((const S*)s.a.b_hh + g * s.H + u * W, s.valid(u, s.H)) : V{};
    }

    // Computes the factor of the inner product, in the middle of the step.
    static void multiplied(Forward<V>& f, int thread, Size step, const S* zx) {
        const C cell(f.a.options);
        auto& own = f.owns[thread];
        Size t = f.time(step);
        bool drops = false;
        for (Size i = 0; i < f.a.products; i++) drops |= f.a.product[i].source == INNER && f.a.product[i].dropped;
        for (Size i = 0; i < own.units.count(); i++) {
            Unit unit;
            V bias[G];
            Size u = own.units.begin + i;
            load_bias(f, u, bias);
            load_vectors(f, u, unit.e);
            for (Size b = 0; b < f.B; b++) {
                V v{};
                if (f.alive(t, b)) {
                    load_gates(f, own, zx, b, i, 0, bias, unit);
                    load_before(f, step, b, u, unit.before);
                    if constexpr (C::inner) v = cell.inner_forward(unit.zx, unit.zr, unit.before, unit.e);
                    if (drops && f.a.dropped)
                        v *= load<V>((const S*)f.a.dropped + b * f.P + u * W, f.valid(u, f.P));
                }
                store(f.inner + ((f.a.training ? t : 0) * f.B + b) * f.Hp + u * W, v);
            }
        }
    }

    static void forward(Forward<V>& f, int thread, int, Size step, Size block, Size blocks, const S* zx) {
        const C cell(f.a.options);
        auto& own = f.owns[thread];
        const Size t = f.time(step), B = f.B;
        for (Size i = 0; i < blocks; i++) {
            Unit unit;
            V bias[G];
            const Size u = own.units.begin + block + i;
            load_bias(f, u, bias);
            load_vectors(f, u, unit.e);
            for (Size b = 0; b < B; b++) {
                load_before(f, step, b, u, unit.before);
                if (!f.alive(t, b)) {
                    stay(f, step, t, b, u, unit.before);
                    continue;
                }
                load_gates(f, own, zx, b, i, block, bias, unit);
                cell.forward(unit.zx, unit.zr, unit.before, unit.e, unit.after, unit.keep);
                if (f.a.training)
                    for (int k = 0; k < K; k++) store(keep_of(f, t, b, u) + k * W, unit.keep[k]);
                put(f, step, t, b, u, unit.before, unit.after);
            }
        }
    }

    // Keeps all states of a sequence that is not alive.
    static FN void stay(Forward<V>& f, Size step, Size t, Size b, Size u, const V* before) {
        for (int k = 1; k < N; k++) store(f.state(k, step + 1) + b * f.Hp + u * W, before[k]);
        if (!f.a.w_hr) f.stay(step, t, b, u);
    }
    // Stores the states after a step, mixed with the shares of the old ones that are kept.
    static FN void put(Forward<V>& f, Size step, Size t, Size b, Size u, const V* before, const V* after) {
        for (int k = 1; k < N; k++) {
            V value = after[k];
            if (f.a.keep_states) value = f.mixed(f.share_of_states(t, b, u), before[k], value);
            store(f.state(k, step + 1) + b * f.Hp + u * W, value);
        }
        V h = after[0];
        if (f.a.w_hr) return store(f.cell_out + ((f.a.training ? t : 0) * f.B + b) * f.H + u * W, h, f.valid(u, f.H));
        if (f.a.keep_h) h = f.mixed(f.share_of_h(t, b, u), before[0], h);
        store((S*)f.a.y + (t * f.B + b) * f.P + u * W, h, f.valid(u, f.P));
        f.pass_on(step, b, u, h);
    }

    static void backward(Backward<V>& f, int thread, int, Size step) {
        const C cell(f.a.options);
        auto& own = f.owns[thread];
        const Size t = f.time(step), B = f.B;
        for (Size u = own.units.begin; u < own.units.end; u++) {
            Unit unit;
            V zx_sum[G] = {}, zr_sum[G] = {}, e_sum[E + 1] = {};
            load_vectors(f, u, unit.e);
            for (Size b = 0; b < B; b++) {
                unit.d[0] = f.dh_of(own, t, b, u);
                if (!f.alive(t, b)) {
                    put_dz(f, t * B + b, u, nullptr, nullptr);
                    continue;
                }
                for (int k = 0; k < K; k++) unit.keep[k] = load<V>(keep_of(f, t, b, u) + k * W);
                load_before(f, step, b, u, unit.before);
                V past[N];
                take_ds(f, t, b, u, unit.d, past);
                cell.backward(unit.keep, unit.before, unit.e, unit.d, unit.zx, unit.zr, unit.de);
                put_dz(f, t * B + b, u, unit.zx, unit.zr);
                for (int g = 0; g < G; g++) {
                    zx_sum[g] += unit.zx[g];
                    if constexpr (C::split) zr_sum[g] += unit.zr[g];
                }
                for (int k = 0; k < E; k++) e_sum[k] += unit.de[k];
                for (int k = 1; k < N; k++) store(f.dstate(k, b, u), unit.d[k] + past[k]);
                if constexpr (C::direct) f.add(f.direct + (b * f.UP + u) * W, unit.d[0]);
            }
            if constexpr (!C::inner) add_sums(f, u, zx_sum, zr_sum);
            for (int k = 0; k < E; k++) f.add(f.sums_e + (u * E + k) * W, e_sum[k]);
        }
    }
    static FN void add_sums(Backward<V>& f, Size u, const V* zx, const V* zr) {
        for (int g = 0; g < G; g++) {
            f.add(f.sums_zx + (u * G + g) * W, zx[g]);
            if constexpr (C::split) f.add(f.sums_zr + (u * G + g) * W, zr[g]);
        }
    }
    // Splits the gradients of the other states: d passes through the step, `past` goes to old states that were kept.
    static FN void take_ds(Backward<V>& f, Size t, Size b, Size u, V* d, V* past) {
        V share = f.a.keep_states && N > 1 ? f.share_of_states(t, b, u) : V{};
        for (int k = 1; k < N; k++) {
            V all = load<V>(f.dstate(k, b, u));
            past[k] = share * all;
            d[k] = all - past[k];
        }
    }
    // Stores dz; null means zeros.
    static FN void put_dz(Backward<V>& f, Size row, Size u, const V* zx, const V* zr) {
        for (int g = 0; g < G; g++) {
            store(f.dzx + row * f.N + (u * G + g) * W, zx ? zx[g] : V{});
            if constexpr (C::split) store(f.dzr + row * f.N + (u * G + g) * W, zr ? zr[g] : V{});
        }
    }

    // Completes the step, once the gradient of the inner product's factor is known.
    static void inner_backward(Backward<V>& f, int thread, Size step) {
        const C cell(f.a.options);
        auto& own = f.owns[thread];
        const Size t = f.time(step), B = f.B;
        for (Size u = own.units.begin; u < own.units.end; u++) {
            Unit unit;
            V sum[G] = {};
            load_vectors(f, u, unit.e);
            for (Size b = 0; b < B; b++) {
                if (!f.alive(t, b)) continue;
                S* dz = f.dzx + (t * B + b) * f.N + u * G * W;
                V dv = load<V>(f.dinner + (own.units.begin * B + b * own.units.count() + u - own.units.begin) * W);
                for (int k = 0; k < K; k++) unit.keep[k] = load<V>(keep_of(f, t, b, u) + k * W);
                load_before(f, step, b, u, unit.before);
                for (int g = 0; g < G; g++) unit.zx[g] = load<V>(dz + g * W);
                unit.d[0] = V{};
                for (int k = 1; k < N; k++) unit.d[k] = load<V>(f.dstate(k, b, u));
                if constexpr (C::inner) cell.inner_backward(unit.keep, unit.before, unit.e, dv, unit.d, unit.zx);
                for (int g = 0; g < G; g++) {
                    store(dz + g * W, unit.zx[g]);
                    sum[g] += unit.zx[g];
                }
                for (int k = 1; k < N; k++) store(f.dstate(k, b, u), unit.d[k]);
                if constexpr (C::direct) f.add(f.direct + (b * f.UP + u) * W, unit.d[0]);
            }
            add_sums(f, u, sum, sum);
        }
    }
};
