// The forward pass of a whole sequence. Each thread owns some blocks of units. It packs their weights, multiplies,
// steps and stores for them alone, and waits for the other threads once in each step.

template <class V> struct Forward : Sequence<V> {
    using Base = Sequence<V>;
    using S = Scalar<V>;
    using Base::W, Base::a, Base::code, Base::T, Base::B, Base::D, Base::H, Base::P, Base::G, Base::U, Base::Hp, Base::UP;

    // One product computes zx for several steps, with at least this many rows if there are so many.
    static constexpr Size input_rows = 96;
    // If x has at most this many rows in all, weights are not packed, since that would take longer than the products.
    static constexpr Size unpacked_rows = 8;
    static constexpr Size cached = 16384;  // bytes of products that stay in the first-level cache

    // The part of one thread.
    struct Own {
        Share units, outputs;
        S *bias, *zx, *z;
        Size width;            // numbers in a row of zx
        Size z_blocks, z_row;  // blocks of units that z holds at a time; numbers in a row of z
        Packed<V> x, r[MOST_PRODUCTS], p;
    };

    const bool packed;
    const Size chunk;  // blocks of units that are computed together; all of them for an inner or a normed cell
    Size steps_at_once;
    S *packed_x, *packed_r[MOST_PRODUCTS], *packed_p, *bias_all, *zx_all, *z_all, *projected, *dropped;
    double* parts;
    Own* owns;
    Barrier barrier;

    Forward(const Args& args, const Code<V>& cell, Carver& save, Carver& scratch)
        : Base(args, cell, save), packed(T * B > unpacked_rows), chunk(cell.inner || cell.normed ? U : chunk_of(G, B)) {
        steps_at_once = blocks_of(input_rows, B ? B : 1);
        if (steps_at_once > T) steps_at_once = T;
        packed_x = scratch.take<S>(packed ? D * Hp * G : 0);
        for (Size i = 0; i < a.products; i++)
            packed_r[i] = scratch.take<S>(packed ? depth(i) * Hp * a.product[i].gates : 0);
        packed_p = scratch.take<S>(packed && a.w_hr ? H * UP * W : 0);
        bias_all = scratch.take<S>(Hp * G);
        zx_all = scratch.take<S>(steps_at_once * B * Hp * G);
        z_all = scratch.take<S>(B * Hp * G);
        projected = scratch.take<S>(a.w_hr ? B * UP * W : 0);
        parts = scratch.take<double>(code.normed ? (steps_at_once + 2) * B * U * 2 : 0);
        dropped = scratch.take<S>(a.dropped ? 2 * B * P : 0);
        owns = scratch.take<Own>(a.threads);
    }

    static void work(void* self, int thread, int threads) { ((Forward*)self)->run(thread, threads); }
    // The number of blocks of units that fill whole panels and whose products stay in the first-level cache.
    static Size chunk_of(Size gates, Size B) {
        Size blocks = 1;
        while (blocks * gates % Packed<V>::width_for(gates)) blocks++;
        Size fit = cached / (Size)sizeof(V) / (B * blocks * gates + 1);
        return fit > 1 ? fit * blocks : blocks;
    }

    Size depth(Size i) const { return a.product[i].source == 0 ? P : H; }

    void run(int thread, int threads) {
        Own& own = owns[thread];
        own = {{U, thread, threads}, {UP, thread, threads}};
        Size units = own.units.count();
        own.width = units * G * W;
        own.bias = bias_all + own.units.begin * G * W;
        own.zx = zx_all + own.units.begin * G * W * steps_at_once * B;
        own.z_blocks = units < chunk ? units : chunk;
        own.z_row = own.z_blocks * G * W;
        own.z = z_all + own.units.begin * G * W * B;
        if (packed) pack(own);
        load_biases(own);
        start_states(own);
        barrier.wait(threads);  // the first step's products also read what other threads have written
        for (Size begin = 0; begin < T; begin += steps_at_once) {
            Size end = begin + steps_at_once < T ? begin + steps_at_once : T, t0 = a.reverse ? T - end : begin;
            input_product(own, t0, end - begin);
            if (code.normed) code.normalise_input(*this, thread, threads, t0, end - begin);
            for (Size step = begin; step < end; step++) {
                one_step(own, thread, threads, step, own.zx + (this->time(step) - t0) * B * own.width);
                if (step + 1 < T) barrier.wait(threads);
            }
        }
        last_states(own);
    }

    // Packs the weights of the own units, with the gates of a unit side by side.
    void pack(Own& own) {
        Size u0 = own.units.begin, units = own.units.count();
        own.x = {packed_x + u0 * G * W * D, D, units * G, G};
        pack_gates(own.x, (const S*)a.w_ih, u0, units, G, H);
        for (Size i = 0; i < a.products; i++) {
            const Product& p = a.product[i];
            own.r[i] = {packed_r[i] + u0 * p.gates * W * depth(i), depth(i), units * p.gates, (int)p.gates};
            if (p.gates != G) own.r[i].widest = 1;  // its gates are not contiguous in z
            pack_gates(own.r[i], (const S*)p.weight, u0, units, p.gates, H);
        }
        if (!a.w_hr) return;
        own.p = {packed_p + own.outputs.begin * W * H, H, own.outputs.count(), 1};
        pack_gates(own.p, (const S*)a.w_hr, own.outputs.begin, own.outputs.count(), 1, P);
    }

    // Packs rows of a weight (gates * rows, K), one vector of the panels for each (block, gate).
    void pack_gates(const Packed<V>& out, const S* weight, Size u0, Size blocks, Size gates, Size rows) {
        Size vectors = blocks * gates;
        for (Size v = 0; v < vectors;) {
            int n = out.width(vectors - v);
            for (int i = 0; i < n; i++) {
                Size block = u0 + (v + i) / gates, gate = (v + i) % gates;
                pack_rows<V>(weight + (gate * rows + block * W) * out.K, out.K, this->valid(block, rows), out.K,
                             out.panel(v) + i * W, n);
            }
            v += n;
        }
    }

    void start_states(Own& own) {
        for (Size b = 0; b < B; b++) {
            for (Size k = 1; k < code.states; k++)
                for (Size u = own.units.begin; u < own.units.end; u++) {
                    const S* first = (const S*)a.first[k];
                    V value = first ? load<V>(first + b * H + u * W, this->valid(u, H)) : V{};
                    store(this->state(k, 0) + b * Hp + u * W, value);
                }
            if (a.dropped && a.first[0])
                for (Size u = own.outputs.begin; u < own.outputs.end; u++)
                    put_dropped(0, b, u, load<V>((const S*)a.first[0] + b * P + u * W, this->valid(u, P)));
        }
    }

    void last_states(Own& own) {
        for (Size b = 0; b < B; b++) {
            const S* h = this->h_before(T);
            for (Size u = own.outputs.begin; u < own.outputs.end; u++)
                store((S*)a.last[0] + b * P + u * W, load<V>(h + b * P + u * W, this->valid(u, P)), this->valid(u, P));
            for (Size k = 1; k < code.states; k++)
                for (Size u = own.units.begin; u < own.units.end; u++)
                    store((S*)a.last[k] + b * H + u * W, load<V>(this->state(k, T) + b * Hp + u * W), this->valid(u, H));
        }
    }

    // Loads the biases that zx includes, in zx's layout: both, or only b_ih for a `split` cell.
    void load_biases(Own& own) {
        const S *first = (const S*)a.b_ih, *second = code.split ? nullptr : (const S*)a.b_hh;
        for (Size v = 0; v < own.units.count() * G; v++) {
            Size u = own.units.begin + v / G, at = v % G * H + u * W, valid = this->valid(u, H);
            V bias = first ? load<V>(first + at, valid) : V{};
            store(own.bias + v * W, second ? bias + load<V>(second + at, valid) : bias);
        }
    }

    // Computes zx (steps, B, own units, G, W) from time t0 on.
    void input_product(Own& own, Size t0, Size steps) {
        Size rows = steps * B;
        const S* x = (const S*)a.x + t0 * B * D;
        if (packed) return own.x.multiply(rows, x, D, own.bias, 0, own.zx, own.width);
        for (Size r = 0; r < rows; r++) std::memcpy(own.zx + r * own.width, own.bias, own.width * sizeof(S));
        product_unpacked(own, rows, x, D, (const S*)a.w_ih, 0, G, D, own.zx, own.width, 0, own.units.count(), true);
    }

    // A product with an unpacked weight: gates first .. first + gates of some own blocks, in z's layout.
    void product_unpacked(Own& own, Size M, const S* left, Size ld, const S* weight, Size first, Size gates, Size K,
                          S* z, Size z_row, Size block, Size blocks, bool add = false) {
        S narrow[unpacked_rows * W];
        for (Size v = 0; v < blocks * gates; v++) {
            Size u = own.units.begin + block + v / gates, gate = v % gates, valid = this->valid(u, H);
            for (Size i = 0; i < M * W; i++) narrow[i] = 0;
            multiply_rows<V>(M, left, ld, weight + (gate * H + u * W) * K, K, valid, K, narrow, W);
            S* out = z + (v / gates * G + first + gate) * W;
            for (Size m = 0; m < M; m++) {
                V sum = load<V>(narrow + m * W);
                store(out + m * z_row, add ? load<V>(out + m * z_row) + sum : sum);
            }
        }
    }

    // Computes one product of a step into z, for some own blocks. It adds to gates that an earlier product has written.
    void product(Own& own, Size i, Size step, Size block, Size blocks, unsigned& written) {
        const Product& p = a.product[i];
        unsigned gates = ((1u << p.gates) - 1) << p.first;
        bool add = gates & written;
        if (add && gates & ~written) clear_gates(own, gates & ~written);
        written |= gates;
        Size ld, K = depth(i);
        const S* left = source(p.source, step, ld);
        if (!left && add) return;
        if (!left) K = 0;
        if (!packed && left) {
            product_unpacked(own, B, left, ld, (const S*)p.weight, p.first, p.gates, K, own.z, own.z_row, block, blocks, add);
            return;
        }
        Packed<V> right = own.r[i];
        right.K = K ? right.K : 0;
        if (!packed) right.vectors = own.units.count() * p.gates;
        if (p.gates == G) {
            right.multiply(B, left, ld, add ? own.z : nullptr, own.z_row, own.z, own.z_row, block * G, blocks * G);
            return;
        }
        for (Size u = 0; u < blocks; u++)
            for (Size g = 0; g < p.gates; g++) {
                S* z = own.z + (u * G + p.first + g) * W;
                right.multiply(B, left, ld, add ? z : nullptr, own.z_row, z, own.z_row, (block + u) * p.gates + g, 1);
            }
    }

    // The left factor of a product: (B, P|H), with rows ld apart.
    const S* source(Size source, Size step, Size& ld) const {
        ld = source == 0 ? P : Hp;
        if (source == INNER) return this->inner + (a.training ? this->time(step) : 0) * B * Hp;
        if (source > 0) return this->state(source, step);
        const S* h = this->h_before(step);
        return h && a.dropped ? dropped + step % 2 * B * P : h;
    }

    void products(Own& own, Size step, Size block, Size blocks, bool inner, unsigned& written) {
        for (Size i = 0; i < a.products; i++)
            if ((a.product[i].source == INNER) == inner) product(own, i, step, block, blocks, written);
        if (inner == code.inner && written != (1u << G) - 1) clear_gates(own, ~written);
        if (inner) return;
        Size t = this->time(step);
        for (Size b = 0; b < B; b++)  // a sequence that begins here has no previous h, so its products are zero
            if (this->cleared(t, b))
                for (Size i = 0; i < blocks * G * W; i++) own.z[b * own.z_row + i] = 0;
    }

    // Sets gates that no product writes to zero.
    void clear_gates(Own& own, unsigned gates) {
        for (Size b = 0; b < B; b++)
            for (Size v = 0; v < own.z_blocks * G; v++)
                if (gates >> v % G & 1) store(own.z + b * own.z_row + v * W, V{});
    }

    void one_step(Own& own, int thread, int threads, Size step, const S* zx) {
        Size units = own.units.count();
        for (Size block = 0; block < units; block += own.z_blocks) {
            Size blocks = units - block < own.z_blocks ? units - block : own.z_blocks;
            unsigned written = 0;
            products(own, step, block, blocks, false, written);
            if (code.inner) {
                code.multiplied(*this, thread, step, zx);
                barrier.wait(threads);
                products(own, step, block, blocks, true, written);
            }
            code.forward(*this, thread, threads, step, block, blocks, zx);
        }
        if (!a.w_hr) return;
        barrier.wait(threads);
        project(own, step);
    }

    // Keeps h of a sequence that is not alive.
    FN void stay(Size step, Size t, Size b, Size u) {
        const S* h = this->cleared(t, b) ? nullptr : this->h_before(step);
        Size valid = this->valid(u, P);
        store((S*)a.y + (t * B + b) * P + u * W, V{}, valid);
        pass_on(step, b, u, h ? load<V>(h + b * P + u * W, valid) : V{});
    }
    // Stores h for the next step, unless that reads y.
    FN void pass_on(Size step, Size b, Size u, V h) {
        if (a.alive) {
            S* to = this->hs + ((a.training ? step : step % 2) * B + b) * P + u * W;
            store(to, h, this->valid(u, P));
        }
        if (a.dropped) put_dropped(step + 1, b, u, h);
    }
    FN void put_dropped(Size step, Size b, Size u, V h) {
        Size at = b * P + u * W, valid = this->valid(u, P);
        store(dropped + step % 2 * B * P + at, h * load<V>((const S*)a.dropped + at, valid), valid);
    }
    static FN V mixed(V share, V before, V after) { return share * before + (1 - share) * after; }

    // h = w_hr (o * tanh c), mixed with the share of the old h that is kept.
    void project(Own& own, Size step) {
        Size t = this->time(step), n = own.outputs.count();
        const S* out = this->cell_out + (a.training ? t : 0) * B * H;
        S* h = projected + own.outputs.begin * W * B;
        if (packed) own.p.multiply(B, out, H, nullptr, 0, h, n * W);
        else
            for (Size i = 0; i < n; i++) {
                Size u = own.outputs.begin + i;
                multiply_rows<V>(B, out, H, (const S*)a.w_hr + u * W * H, H, this->valid(u, P), H, h + i * W, n * W);
            }
        for (Size b = 0; b < B; b++)
            for (Size i = 0; i < n; i++) {
                Size u = own.outputs.begin + i;
                if (!this->alive(t, b)) {
                    stay(step, t, b, u);
                    continue;
                }
                V value = load<V>(h + (b * n + i) * W);
                if (a.keep_h) {
                    const S* old = this->cleared(t, b) ? nullptr : this->h_before(step);
                    V before = old ? load<V>(old + b * P + u * W, this->valid(u, P)) : V{};
                    value = mixed(this->share_of_h(t, b, u), before, value);
                }
                store((S*)a.y + (t * B + b) * P + u * W, value, this->valid(u, P));
                pass_on(step, b, u, value);
            }
    }
};
