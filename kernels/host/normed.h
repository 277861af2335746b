// The steps of cells that normalise rows (layer norm). Sums over a row need all units, so threads wait for each other
// in the middle of a step. Each block of units gives its part of a sum, and every thread adds the parts in the same
// order. Sums are in double, since a row has many elements and their sums nearly cancel.

// Mean and scale 1 / sqrt(variance + eps) of a row, from the parts (mean, squared deviations) of its blocks.
// Chan, Golub & LeVeque 1983, "Algorithms for computing the sample variance".
template <class S> struct Moments {
    S mean, scale;
    // parts (U, 2); `of_block` numbers in each block, `of_last` in the last.
    Moments(const double* parts, Size U, Size of_block, Size of_last, double eps) {
        double count = (double)((U - 1) * of_block + of_last), sum = 0, squares = 0;
        for (Size u = 0; u < U; u++) sum += parts[2 * u] * (double)(u + 1 < U ? of_block : of_last);
        for (Size u = 0; u < U; u++) {
            double from_mean = parts[2 * u] - sum / count;
            squares += parts[2 * u + 1] + (double)(u + 1 < U ? of_block : of_last) * from_mean * from_mean;
        }
        mean = (S)(sum / count);
        scale = (S)(1 / sqrt_(squares / count + eps));
    }
};

// The part of one block: n vectors, each with `valid` lanes.
template <class V> FN void moments_of(const V* values, int n, Size valid, double* part) {
    V sum = values[0], squares{};
    for (int i = 1; i < n; i++) sum += values[i];
    part[0] = sum_of(sum, valid) / (double)(n * valid);
    for (int i = 0; i < n; i++) {
        V from_mean = values[i] - (Scalar<V>)part[0];
        squares += from_mean * from_mean;
    }
    part[1] = sum_of(squares, valid);
}

// The means of d and of d * x_hat over a row, from its blocks' sums.
template <class S> struct Means {
    S d, d_hat;
    Means(const double* parts, Size U, Size count) {
        double sum = 0, sum_hat = 0;
        for (Size u = 0; u < U; u++) sum += parts[2 * u], sum_hat += parts[2 * u + 1];
        d = (S)(sum / (double)count);
        d_hat = (S)(sum_hat / (double)count);
    }
};

template <class C, class V> struct NormedSteps {
    using S = Scalar<V>;
    using P = Steps<C, V>;
    // A step keeps the gates and both normalised products. moments has, for each row, the scales of zx and of zr, and
    // the mean and the scale of c.
    static constexpr int W = lanes<V>, G = C::gates, E = C::vectors, K = 3 * G;

    static S* keep_of(const Sequence<V>& s, Size t, Size b, Size u) { return s.keep + (t * s.B + b) * s.keep_row + u * K * W; }
    static FN void load_keep(const Sequence<V>& s, Size t, Size b, Size u, V* keep) {
        for (int k = 0; k < K; k++) keep[k] = load<V>(keep_of(s, t, b, u) + k * W);
    }

    // Normalises the products x W_ih' of several steps, in place.
    static void normalise_input(Forward<V>& f, int thread, int threads, Size t0, Size steps) {
        auto& own = f.owns[thread];
        const Size B = f.B, U = f.U, rows = steps * B, last = f.valid(U - 1, f.H);
        for (Size r = 0; r < rows; r++)
            for (Size i = 0; i < own.units.count(); i++) {
                V z[G];
                for (int g = 0; g < G; g++) z[g] = load<V>(own.zx + r * own.width + (i * G + g) * W);
                moments_of(z, G, f.valid(own.units.begin + i, f.H), f.parts + (r * U + own.units.begin + i) * 2);
            }
        f.barrier.wait(threads);
        for (Size r = 0; r < rows; r++) {
            Moments<S> row(f.parts + r * U * 2, U, G * W, G * last, C::eps);
            if (f.a.training && thread == 0) f.moments[(t0 * B + r) * 4] = row.scale;
            for (Size v = 0; v < own.units.count() * G; v++) {
                S* z = own.zx + r * own.width + v * W;
                store(z, (load<V>(z) - row.mean) * row.scale);
            }
        }
    }

    static void forward(Forward<V>& f, int thread, int threads, Size step, Size, Size, const S* zx) {
        const C cell(f.a.options);
        auto& own = f.owns[thread];
        const Size t = f.time(step), B = f.B, U = f.U, last = f.valid(U - 1, f.H);
        double *of_zr = f.parts + f.steps_at_once * B * U * 2, *of_c = of_zr + B * U * 2;
        for (Size b = 0; b < B; b++)
            for (Size i = 0; i < own.units.count(); i++) {
                V z[G];
                for (int g = 0; g < G; g++) z[g] = load<V>(own.z + b * own.z_row + (i * G + g) * W);
                moments_of(z, G, f.valid(own.units.begin + i, f.H), of_zr + (b * U + own.units.begin + i) * 2);
            }
        f.barrier.wait(threads);
        for (Size b = 0; b < B; b++) {
            if (!f.alive(t, b)) continue;
            Moments<S> row(of_zr + b * U * 2, U, G * W, G * last, C::eps);
            if (f.a.training && thread == 0) f.moments[(t * B + b) * 4 + 1] = row.scale;
            for (Size i = 0; i < own.units.count(); i++) {
                Size u = own.units.begin + i;
                V x_hat[G], r_hat[G], e[E + 1], g[G], before[C::states];
                S *z = own.z + b * own.z_row + i * G * W, *keep = keep_of(f, t, b, u);
                for (int k = 0; k < G; k++) {
                    x_hat[k] = load<V>(zx + b * own.width + (i * G + k) * W);
                    r_hat[k] = (load<V>(z + k * W) - row.mean) * row.scale;
                }
                P::load_vectors(f, u, e);
                P::load_before(f, step, b, u, before);
                cell.gates_of(x_hat, r_hat, e, g);
                for (int k = 0; k < G; k++) {
                    store(z + k * W, g[k]);
                    if (!f.a.training) continue;
                    store(keep + k * W, g[k]);
                    store(keep + (G + k) * W, x_hat[k]);
                    store(keep + (2 * G + k) * W, r_hat[k]);
                }
                V c = cell.state(g, before);
                moments_of(&c, 1, f.valid(u, f.H), of_c + (b * U + u) * 2);
            }
        }
        f.barrier.wait(threads);
        for (Size b = 0; b < B; b++) {
            bool alive = f.alive(t, b);
            Moments<S> row(of_c + b * U * 2, U, W, last, C::eps);
            if (f.a.training && thread == 0) {
                f.moments[(t * B + b) * 4 + 2] = row.mean;
                f.moments[(t * B + b) * 4 + 3] = row.scale;
            }
            for (Size i = 0; i < own.units.count(); i++) {
                Size u = own.units.begin + i;
                V e[E + 1], g[G], before[C::states], after[C::states];
                P::load_before(f, step, b, u, before);
                if (!alive) {
                    P::stay(f, step, t, b, u, before);
                    continue;
                }
                for (int k = 0; k < G; k++) g[k] = load<V>(own.z + b * own.z_row + (i * G + k) * W);
                P::load_vectors(f, u, e);
                after[1] = cell.state(g, before);
                after[0] = cell.output(g, (after[1] - row.mean) * row.scale, e);
                P::put(f, step, t, b, u, before, after);
            }
        }
    }

    static void backward(Backward<V>& f, int thread, int threads, Size step) {
        const C cell(f.a.options);
        auto& own = f.owns[thread];
        const Size t = f.time(step), B = f.B, U = f.U;
        double *of_c = f.parts, *of_x = f.parts + B * U * 2, *of_r = f.parts + 2 * B * U * 2;
        // From h to the gradient of LN(c).
        for (Size b = 0; b < B; b++) {
            const S* row = f.moments + (t * B + b) * 4;
            for (Size u = own.units.begin; u < own.units.end; u++) {
                V dh = f.dh_of(own, t, b, u), e[E + 1], de[E + 1] = {}, before[C::states], keep[K], dz[G] = {}, d{};
                if (!f.alive(t, b)) continue;
                load_keep(f, t, b, u, keep);
                P::load_vectors(f, u, e);
                P::load_before(f, step, b, u, before);
                V c_hat = (cell.state(keep, before) - row[2]) * row[3];
                cell.output_backward(keep, c_hat, e, dh, d, dz, de);
                P::put_dz(f, t * B + b, u, dz, dz);
                for (int k = 0; k < E; k++) f.add(f.sums_e + (u * E + k) * W, de[k]);
                store(f.d_hat + b * f.Hp + u * W, d);
                of_c[(b * U + u) * 2] = sum_of(d, f.valid(u, f.H));
                of_c[(b * U + u) * 2 + 1] = sum_of(d * c_hat, f.valid(u, f.H));
            }
        }
        f.barrier.wait(threads);
        // From c to the gradients of the normalised products.
        for (Size b = 0; b < B; b++) {
            const S* row = f.moments + (t * B + b) * 4;
            if (!f.alive(t, b)) continue;
            Means<S> means(of_c + b * U * 2, U, f.H);
            for (Size u = own.units.begin; u < own.units.end; u++) {
                V e[E + 1], de[E + 1] = {}, before[C::states], keep[K], d[C::states], past[C::states], dz[G], dx[G], dr[G];
                V sums[4] = {};
                load_keep(f, t, b, u, keep);
                P::load_vectors(f, u, e);
                P::load_before(f, step, b, u, before);
                P::take_ds(f, t, b, u, d, past);
                V c_hat = (cell.state(keep, before) - row[2]) * row[3];
                V dc = d[1] + row[3] * (load<V>(f.d_hat + b * f.Hp + u * W) - means.d - c_hat * means.d_hat);
                for (int g = 0; g < G; g++) dz[g] = load<V>(f.dzx + (t * B + b) * f.N + (u * G + g) * W);
                cell.state_backward(keep, before, keep + G, keep + 2 * G, e, dc, d, dz, dx, dr, de);
                P::put_dz(f, t * B + b, u, dx, dr);
                for (int k = 0; k < E; k++) f.add(f.sums_e + (u * E + k) * W, de[k]);
                store(f.dstate(1, b, u), d[1] + past[1]);
                for (int g = 0; g < G; g++) {
                    sums[0] += dx[g];
                    sums[1] += dx[g] * keep[G + g];
                    sums[2] += dr[g];
                    sums[3] += dr[g] * keep[2 * G + g];
                }
                for (int i = 0; i < 2; i++) {
                    of_x[(b * U + u) * 2 + i] = sum_of(sums[i], f.valid(u, f.H));
                    of_r[(b * U + u) * 2 + i] = sum_of(sums[2 + i], f.valid(u, f.H));
                }
            }
        }
        f.barrier.wait(threads);
        // From the normalised products to the products.
        for (Size b = 0; b < B; b++) {
            if (!f.alive(t, b)) {
                for (Size u = own.units.begin; u < own.units.end; u++) P::put_dz(f, t * B + b, u, nullptr, nullptr);
                continue;
            }
            const S* row = f.moments + (t * B + b) * 4;
            Means<S> x(of_x + b * U * 2, U, G * f.H), r(of_r + b * U * 2, U, G * f.H);
            for (Size u = own.units.begin; u < own.units.end; u++) {
                V keep[K], dx[G], dr[G];
                load_keep(f, t, b, u, keep);
                for (int g = 0; g < G; g++) {
                    Size at = (t * B + b) * f.N + (u * G + g) * W;
                    dx[g] = row[0] * (load<V>(f.dzx + at) - x.d - keep[G + g] * x.d_hat);
                    dr[g] = row[1] * (load<V>(f.dzr + at) - r.d - keep[2 * G + g] * r.d_hat);
                }
                P::put_dz(f, t * B + b, u, dx, dr);
            }
        }
    }
};
