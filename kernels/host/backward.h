// The backward pass of a whole sequence, from what the forward pass kept. Each thread owns blocks of units, of outputs
// and of inputs. It differentiates its units, and computes its own columns of dh and rows of the weights' gradients.

template <class V> struct Backward : Sequence<V> {
    using Base = Sequence<V>;
    using S = Scalar<V>;
    using Base::W, Base::a, Base::code, Base::T, Base::B, Base::D, Base::H, Base::P, Base::G, Base::U, Base::Hp, Base::UP;

    static constexpr Size input_rows = 96;       // rows of dx that are computed at a time
    static constexpr Size gradient_block = 256;  // rows of dz that a weight's gradient sums over at a time
    static constexpr int widest = Panels<V>::widest_short;
    static constexpr Size edge_size = (W + input_rows) * widest * W;

    struct Own {
        Share units, outputs, inputs;
        S *dh, *right, *edge;  // dh (B, own outputs)
        Packed<V> r[MOST_PRODUCTS], p, x;
        Size columns() const { return outputs.count() * W; }
    };

    const Size UD, N, E;  // blocks of inputs; numbers in a row of dz; parameters that are vectors
    S *dzx, *dzr, *dh_all, *dcell, *direct, *ds, *dinner, *dhs, *sums_zx, *sums_zr, *sums_e, *d_hat;
    double* parts;
    S *operand[MOST_PRODUCTS], *packed_r[MOST_PRODUCTS], *packed_p, *packed_x, *left_all, *right_all, *edge_all;
    Own* owns;
    Barrier barrier;

    // Whether dz can overwrite what forward kept, because it fits there.
    static bool in_place(const Code<V>& code) {
        return code.kept == code.gates && !code.split && !code.inner && !code.normed;
    }

    Backward(const Args& args, const Code<V>& cell, Carver& save, Carver& scratch)
        : Base(args, cell, save), UD(blocks_of(args.D, W)), N(Hp * G), E(cell.vectors) {
        Size rows = T * B;
        dzx = in_place(code) ? this->keep : scratch.take<S>(rows * N);
        dzr = code.split ? scratch.take<S>(rows * N) : dzx;
        dh_all = scratch.take<S>(B * UP * W);
        dcell = scratch.take<S>(a.w_hr ? B * Hp : 0);
        direct = scratch.take<S>(B * UP * W);
        ds = scratch.take<S>((code.states - 1) * B * Hp);
        dinner = scratch.take<S>(code.inner ? B * Hp : 0);
        dhs = scratch.take<S>(a.w_hr ? rows * UP * W : 0);
        sums_zx = scratch.take<S>(N);
        sums_zr = scratch.take<S>(N);
        sums_e = scratch.take<S>(E * Hp);
        parts = scratch.take<double>(code.normed ? 3 * B * U * 2 : 0);
        d_hat = scratch.take<S>(code.normed ? B * Hp : 0);
        for (Size i = 0; i < a.products; i++) {
            const Product& p = a.product[i];
            operand[i] = scratch.take<S>(p.gates != G ? 2 * B * Hp * p.gates : 0);
            packed_r[i] = scratch.take<S>(Hp * p.gates * (p.source == 0 ? UP : U) * W);
        }
        packed_p = scratch.take<S>(a.w_hr ? UP * W * Hp : 0);
        packed_x = scratch.take<S>(a.dx ? N * UD * W : 0);
        left_all = scratch.take<S>(gradient_block * (N + (a.w_hr ? UP * W : 0)));
        right_all = scratch.take<S>(a.threads * gradient_block * widest * W);
        edge_all = scratch.take<S>(a.threads * edge_size);
        owns = scratch.take<Own>(a.threads);
    }

    static void work(void* self, int thread, int threads) { ((Backward*)self)->run(thread, threads); }

    void run(int thread, int threads) {
        Own& own = owns[thread];
        own = {{U, thread, threads}, {UP, thread, threads}, {UD, thread, threads}};
        own.dh = dh_all + own.outputs.begin * W * B;
        own.right = right_all + thread * gradient_block * widest * W;
        own.edge = edge_all + thread * edge_size;
        pack(own);
        start(own);
        for (Size step = T - 1; step >= 0; step--) {
            Size t = this->time(step);
            if (a.w_hr) project(own, threads, t);
            code.backward(*this, thread, threads, step);
            copy_operands(own, step, t, code.inner);
            if (code.inner) {
                barrier.wait(threads);
                inner_products(own, step, t);
                code.inner_backward(*this, thread, step);
                copy_operands(own, step, t, false);
            }
            barrier.wait(threads);
            products(own, step, t);
        }
        finish(own);
        weights(own);
        if (!a.dx) return;
        pack_columns(own.x, (const S*)a.w_ih, own.inputs.begin, G, H, D);
        inputs(own);
    }

    void pack(Own& own) {
        for (Size i = 0; i < a.products; i++) {
            const Product& p = a.product[i];
            const Share& columns = p.source == 0 ? own.outputs : own.units;
            own.r[i] = {packed_r[i] + columns.begin * W * Hp * p.gates, Hp * p.gates, columns.count(), 1};
            pack_columns(own.r[i], (const S*)p.weight, columns.begin, p.gates, H, p.source == 0 ? P : H);
        }
        if (a.w_hr) {
            own.p = {packed_p + own.units.begin * W * UP * W, UP * W, own.units.count(), 1};
            pack_columns(own.p, (const S*)a.w_hr, own.units.begin, 1, P, H);
        }
        if (a.dx) own.x = {packed_x + own.inputs.begin * W * N, N, own.inputs.count(), 1};
    }

    // Packs columns of a weight (gates * rows, n), from block `first` on. k goes through the rows in the order of dz:
    // block by block, gate by gate.
    void pack_columns(const Packed<V>& out, const S* weight, Size first, Size gates, Size rows, Size n) {
        for (Size v = 0; v < out.vectors;) {
            int width = out.width(out.vectors - v);
            S* to = out.panel(v);
            for (Size u = 0; u < blocks_of(rows, W); u++)
                for (Size g = 0; g < gates; g++)
                    for (Size l = 0; l < W; l++, to += width * W) {
                        bool there = u * W + l < rows;
                        pack_row<V>(there ? weight + (g * rows + u * W + l) * n + (first + v) * W : nullptr,
                                    n - (first + v) * W, to, width);
                    }
            v += width;
        }
    }

    // Begins with the gradients of the last states.
    void start(Own& own) {
        for (Size b = 0; b < B; b++) {
            for (Size i = 0; i < own.outputs.count(); i++) {
                Size u = own.outputs.begin + i;
                const S* d = (const S*)a.dlast[0];
                store(own.dh + b * own.columns() + i * W, V{});
                store(direct + (b * UP + u) * W, d ? load<V>(d + b * P + u * W, this->valid(u, P)) : V{});
            }
            for (Size k = 1; k < code.states; k++)
                for (Size u = own.units.begin; u < own.units.end; u++) {
                    const S* d = (const S*)a.dlast[k];
                    store(dstate(k, b, u), d ? load<V>(d + b * H + u * W, this->valid(u, H)) : V{});
                }
        }
        for (Size v = own.units.begin * G; v < own.units.end * G; v++) {
            store(sums_zx + v * W, V{});
            store(sums_zr + v * W, V{});
        }
        for (Size v = own.units.begin * E; v < own.units.end * E; v++) store(sums_e + v * W, V{});
    }
    S* dstate(Size k, Size b, Size u) const { return ds + ((k - 1) * B + b) * Hp + u * W; }

    // Returns the gradient of a sequence's h that passes through the step. direct becomes the rest, which goes to the
    // state before: the share that zoneout keeps, or all of it if the sequence is not alive.
    FN V take_dh(Own& own, Size t, Size b, Size i) {
        Size u = own.outputs.begin + i;
        S* past = direct + (b * UP + u) * W;
        V all = load<V>(own.dh + b * own.columns() + i * W) + load<V>(past);
        if (!this->alive(t, b)) {
            store(past, all);
            return V{};
        }
        if (a.dy) all += load<V>((const S*)a.dy + (t * B + b) * P + u * W, this->valid(u, P));
        V kept = a.keep_h ? this->share_of_h(t, b, u) * all : V{};
        store(past, kept);
        return all - kept;
    }

    // Writes the gradient of a step's projected h to dhs, and that of the projection's input to dcell.
    void project(Own& own, int threads, Size t) {
        for (Size b = 0; b < B; b++)
            for (Size i = 0; i < own.outputs.count(); i++)
                store(dhs + ((t * B + b) * UP + own.outputs.begin + i) * W, take_dh(own, t, b, i));
        barrier.wait(threads);
        S* out = dcell + own.units.begin * W * B;
        own.p.multiply(B, dhs + t * B * UP * W, UP * W, nullptr, 0, out, own.units.count() * W);
    }

    FN V dh_of(Own& own, Size t, Size b, Size u) {
        if (!a.w_hr) return take_dh(own, t, b, u - own.units.begin);
        return load<V>(dcell + own.units.begin * W * B + (b * own.units.count() + u - own.units.begin) * W);
    }

    FN void add(S* sum, V value) const { store(sum, load<V>(sum) + value); }
    // Computes dv for the own units from the gates that have the inner product.
    void inner_products(Own& own, Size step, Size t) {
        S* out = dinner + own.units.begin * W * B;
        Size width = own.units.count() * W;
        bool add = false, drops = false;
        for (Size i = 0; i < a.products; i++)
            if (a.product[i].source == INNER) {
                own.r[i].multiply(B, left_of(i, step, t), left_row(i), add ? out : nullptr, width, out, width);
                add = true;
                drops |= a.product[i].dropped;
            }
        if (drops && a.dropped) multiply_dropped(out, own.units);
    }
    void multiply_dropped(S* out, const Share& own) {
        for (Size b = 0; b < B; b++)
            for (Size i = 0; i < own.count(); i++) {
                Size u = own.begin + i;
                S* at = out + (b * own.count() + i) * W;
                store(at, load<V>(at) * load<V>((const S*)a.dropped + b * P + u * W, this->valid(u, P)));
            }
    }

    // Copies dz of a step for products that have only some of the gates, so that their columns are contiguous.
    void copy_operands(Own& own, Size step, Size t, bool inner) {
        for (Size i = 0; i < a.products; i++) {
            const Product& p = a.product[i];
            if (p.gates == G || (p.source == INNER) != inner) continue;
            for (Size b = 0; b < B; b++)
                for (Size u = own.units.begin; u < own.units.end; u++)
                    for (Size g = 0; g < p.gates; g++)
                        store(left_of(i, step, t) + (b * U + u) * p.gates * W + g * W,
                              load<V>(dzr + (t * B + b) * N + (u * G + p.first + g) * W));
        }
    }
    S* left_of(Size i, Size step, Size t) const {
        if (a.product[i].gates == G) return dzr + t * B * N;
        return operand[i] + step % 2 * B * Hp * a.product[i].gates;
    }
    Size left_row(Size i) const { return Hp * a.product[i].gates; }

    // Computes the gradients of the states before a step, through its products.
    void products(Own& own, Size step, Size t) {
        bool written = false;
        for (Size i = 0; i < a.products; i++) {
            const Product& p = a.product[i];
            const S* left = left_of(i, step, t);
            if (p.source == 0) {
                own.r[i].multiply(B, left, left_row(i), written ? own.dh : nullptr, own.columns(), own.dh, own.columns());
                written = true;
            } else if (p.source > 0) {
                S* out = ds + (p.source - 1) * B * Hp + own.units.begin * W;
                own.r[i].multiply(B, left, left_row(i), out, Hp, out, Hp);
            }
        }
        if (a.dropped) multiply_dropped(own.dh, own.outputs);
        if (!a.clear) return;
        for (Size b = 0; b < B; b++)
            if (this->cleared(t, b)) {
                for (Size i = 0; i < own.outputs.count(); i++) {
                    store(own.dh + b * own.columns() + i * W, V{});
                    store(direct + (b * UP + own.outputs.begin + i) * W, V{});
                }
                for (Size k = 1; k < code.states; k++)
                    for (Size u = own.units.begin; u < own.units.end; u++) store(dstate(k, b, u), V{});
            }
    }

    // Stores the sums over all steps, and the gradients of the initial states.
    void finish(Own& own) {
        for (Size u = own.units.begin; u < own.units.end; u++) {
            Size valid = this->valid(u, H);
            for (int g = 0; g < G; g++) {
                V zx = load<V>(sums_zx + (u * G + g) * W), zr = code.split ? load<V>(sums_zr + (u * G + g) * W) : zx;
                if (a.db_ih) store((S*)a.db_ih + g * H + u * W, zx, valid);
                if (a.db_hh) store((S*)a.db_hh + g * H + u * W, zr, valid);
            }
            for (int k = 0; k < E; k++)
                if (a.dvectors) store((S*)a.dvectors + k * H + u * W, load<V>(sums_e + (u * E + k) * W), valid);
            for (Size k = 1; k < code.states; k++)
                for (Size b = 0; b < B; b++)
                    if (a.dfirst[k]) store((S*)a.dfirst[k] + b * H + u * W, load<V>(dstate(k, b, u)), valid);
        }
        if (!a.dfirst[0]) return;
        for (Size b = 0; b < B; b++)
            for (Size i = 0; i < own.outputs.count(); i++) {
                Size u = own.outputs.begin + i;
                V d = load<V>(own.dh + b * own.columns() + i * W) + load<V>(direct + (b * UP + u) * W);
                store((S*)a.dfirst[0] + b * P + u * W, d, this->valid(u, P));
            }
    }

    // gradients.h
    struct Right;
    void weights(Own& own);
    void gradient(Own& own, const S* left, Size first, Size count, Size row, const Right* rights, int n);
    const S* row_of(const Right& right, Size t, Size b) const;
    void pack_right(const Right& right, Size k0, Size depth, Size n0, int width, S* to) const;
    void inputs(Own& own);
};
