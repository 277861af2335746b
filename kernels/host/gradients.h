// The gradients of the weights and of the inputs, computed after the backward pass through all steps.

// A right factor of weight gradients: a row for each step and sequence; a null row counts as zeros.
template <class V> struct Backward<V>::Right {
    enum Kind { X, STATE, INNER_V, CELL } kind;
    Size state, columns;          // columns: numbers in a row
    Size first, gates;            // the gates of dz that it is multiplied with
    Size rows;                    // of each gate: H, or P for the projection
    S* out;                       // (gates * rows, columns)
};

template <class V> void Backward<V>::weights(Own& own) {
    Right rights[MOST_PRODUCTS + 1];
    int of_x = 0, all = 0;
    if (a.dw_ih) rights[of_x++] = {Right::X, 0, D, 0, G, H, (S*)a.dw_ih};
    all = of_x;
    for (Size i = 0; i < a.products; i++) {
        const Product& p = a.product[i];
        auto kind = p.source == INNER ? Right::INNER_V : Right::STATE;
        if (p.dweight) rights[all++] = {kind, p.source, p.source == 0 ? P : H, p.first, p.gates, H, (S*)p.dweight};
    }
    Size first = own.units.begin * G, count = own.units.count() * G;
    if (code.split) {
        gradient(own, dzx, first, count, N, rights, of_x);
        gradient(own, dzr, first, count, N, rights + of_x, all - of_x);
    } else {
        gradient(own, dzx, first, count, N, rights, all);
    }
    Right cell_out = {Right::CELL, 0, H, 0, 1, P, (S*)a.dw_hr};
    if (a.dw_hr) gradient(own, dhs, own.outputs.begin, own.outputs.count(), UP * W, &cell_out, 1);
}

// For each right factor, dw (own rows, columns) = the own vectors of left, transposed, times the factor. The part of
// left is packed once for all factors. `first` and `count` give the own vectors of left, whose rows have `row` numbers.
template <class V>
void Backward<V>::gradient(Own& own, const S* left, Size first, Size count, Size row, const Right* rights, int n) {
    const bool outputs = n && rights[0].kind == Right::CELL;
    // The outputs' parts are after the units' parts, which another thread may still be using.
    S *packed = left_all + ((outputs ? Hp * G : 0) + first * W) * gradient_block, *panel = own.right, *edge = own.edge;
    Size of_block = outputs ? 1 : G;  // vectors of a block of units
    for (Size k0 = 0; k0 < T * B || k0 == 0; k0 += gradient_block) {  // once even without rows, to write zeros
        Size depth = T * B - k0 < gradient_block ? T * B - k0 : gradient_block;
        for (Size k = 0; k < depth; k++)
            for (Size m = 0; m < count; m++)
                store(packed + (m * depth + k) * W, load<V>(left + (k0 + k) * row + (first + m) * W));
        for (const Right* right = rights; right < rights + n; right++) {
            Size vectors = blocks_of(right->columns, W);
            Size panels = blocks_of(vectors, widest);
            for (Size n0 = 0; panels > 0; panels--) {  // of nearly the same width
                int width = (int)blocks_of(vectors - n0, panels);
                Size valid = right->columns - n0 * W < width * W ? right->columns - n0 * W : width * W;
                if (depth) pack_right(*right, k0, depth, n0, width, panel);
                for (Size m = 0; m < count; m++) {
                    Size gate = m % of_block - right->first, u = first / of_block + m / of_block;
                    if (gate < 0 || gate >= right->gates) continue;
                    Size rows = this->valid(u, right->rows), ld = right->columns;
                    S* out = right->out + (gate * right->rows + u * W) * ld + n0 * W;
                    const S* at = packed + m * depth * W;
                    if (valid == width * W) {
                        multiply_panel<V, true>(width, rows, at, W, panel, depth, k0 ? out : nullptr, ld, out, ld);
                        continue;
                    }
                    multiply_panel<V, true>(width, rows, at, W, panel, depth, nullptr, 0, edge, width * W);
                    for (Size r = 0; r < rows; r++)
                        for (Size i = 0; i < valid; i++)
                            out[r * ld + i] = (k0 ? out[r * ld + i] : 0) + edge[r * width * W + i];
                }
                n0 += width;
            }
        }
    }
}

// The factor that a step of a sequence multiplied; null if the step is invalid, or if its states were cleared.
template <class V> auto Backward<V>::row_of(const Right& right, Size t, Size b) const -> const S* {
    if (!this->alive(t, b)) return nullptr;
    switch (right.kind) {
        case Right::X: return (const S*)a.x + (t * B + b) * D;
        case Right::INNER_V: return this->inner + (t * B + b) * Hp;
        case Right::CELL: return this->cell_out + (t * B + b) * H;
        default: break;
    }
    if (this->cleared(t, b)) return nullptr;
    if (right.state > 0) return this->state(right.state, this->step_of(t)) + b * Hp;
    const S* h = this->h_before(this->step_of(t));
    return h ? h + b * P : nullptr;
}

template <class V>
void Backward<V>::pack_right(const Right& right, Size k0, Size depth, Size n0, int width, S* to) const {
    Size valid = right.columns - n0 * W, t = k0 / B, b = k0 % B;
    const bool drops = a.dropped && right.kind == Right::STATE && right.state == 0;
    for (Size k = 0; k < depth; k++, to += width * W) {
        const S* row = row_of(right, t, b);
        pack_row<V>(row ? row + n0 * W : nullptr, valid, to, width);
        if (drops && row)
            for (int i = 0; i < width; i++)
                store(to + i * W, load<V>(to + i * W) *
                                      load<V>((const S*)a.dropped + b * P + (n0 + i) * W, valid - i * W));
        if (++b == B) b = 0, t++;
    }
}

// dx = dz w_ih, for the own columns.
template <class V> void Backward<V>::inputs(Own& own) {
    S* edge = own.edge + W * widest * W;
    for (Size r0 = 0; r0 < T * B; r0 += input_rows) {
        Size rows = T * B - r0 < input_rows ? T * B - r0 : input_rows;
        for (Size v = 0; v < own.x.vectors;) {
            int width = own.x.width(own.x.vectors - v);
            Size column = (own.inputs.begin + v) * W, valid = D - column < width * W ? D - column : width * W;
            S* out = (S*)a.dx + r0 * D + column;
            if (valid == width * W) {
                own.x.multiply(rows, dzx + r0 * N, N, nullptr, 0, out, D, v, width);
            } else {
                own.x.multiply(rows, dzx + r0 * N, N, nullptr, 0, edge, width * W, v, width);
                for (Size r = 0; r < rows; r++)
                    for (Size i = 0; i < valid; i++) out[r * D + i] = edge[r * width * W + i];
            }
            v += width;
        }
    }
}
