package postgres

import (
	"bytes"
	"cmp"
	"errors"
	"slices"

	"smime-agent/server-stub/store"
)

const (
	// firstPage and maxPage are how many records of a range are fetched at once: a
	// range is often left after a few, or has only a few.
	firstPage = 32
	maxPage   = 1024
)

// values are records by bucket and key; nil stands for one that is not there.
type values map[store.Bucket]map[string][]byte

func (v values) set(bucket store.Bucket, key, value []byte) {
	if v[bucket] == nil {
		v[bucket] = map[string][]byte{}
	}
	v[bucket][string(key)] = value
}

func (v values) get(bucket store.Bucket, key []byte) (value []byte, known bool) {
	value, known = v[bucket][string(key)]
	return value, known
}

// tx is a [store.Tx] over a session. Writes stay in memory until the session
// commits, so a write that fails leaves nothing behind for those that share it.
type tx struct {
	session *session
	// known was read, or written by those that came before in this session.
	known values
	// own is what this one wrote; nil in a transaction that only reads.
	own   values
	words []string
	// page is where a range is at present.
	page *page
	// ahead is what [tx.Ahead] said of the next range.
	ahead int
}

func newTx(s *session) *tx { return &tx{session: s, known: values{}} }

// page is a piece of a range, and what other buckets have under its keys. What is
// looked up by is made when something is looked up: most ranges are only gone through.
type page struct {
	bucket store.Bucket
	rows   []row
	keys   [][]byte
	has    map[string]bool
	near   values
}

func (p *page) index() {
	if p.near != nil {
		return
	}
	p.has, p.near = make(map[string]bool, len(p.rows)), values{}
	for _, r := range p.rows {
		p.keys, p.has[string(r.Key)] = append(p.keys, r.Key), true
		p.near.set(p.bucket, r.Key, r.value)
	}
}

var errReadOnly = errors.New("a view writes nothing")

// Get answers from memory what it can.
func (t *tx) Get(bucket store.Bucket, key []byte) []byte {
	if value, ok := t.seen(bucket, key); ok {
		return value
	}
	if t.page != nil && t.page.has[string(key)] {
		// Who goes through one bucket and looks up each key in another will do so for the rest.
		t.fetchNear(bucket)
		value, _ := t.page.near.get(bucket, key)
		return value
	}
	t.Prefetch([]store.Ref{{Bucket: bucket, Key: key}})
	value, _ := t.known.get(bucket, key)
	return value
}

func (t *tx) seen(bucket store.Bucket, key []byte) (value []byte, ok bool) {
	if value, ok := t.own.get(bucket, key); ok {
		return value, true
	}
	if value, ok := t.known.get(bucket, key); ok {
		return value, true
	}
	if t.page != nil {
		t.page.index()
		return t.page.near.get(bucket, key)
	}
	return nil, false
}

func (t *tx) fetchNear(bucket store.Bucket) {
	for _, key := range t.page.keys {
		t.page.near.set(bucket, key, nil)
	}
	t.session.ask(statement{
		sql: "select key, value from " + string(bucket) + " where key = any($1)", args: []any{t.page.keys},
		take: func(key, value []byte) { t.page.near.set(bucket, key, value) },
	})
}

// Prefetch gets records in one go, that is, in one exchange with the database.
func (t *tx) Prefetch(refs []store.Ref) {
	open := map[store.Bucket][][]byte{}
	for _, ref := range refs {
		if _, ok := t.seen(ref.Bucket, ref.Key); !ok {
			t.known.set(ref.Bucket, ref.Key, nil)
			open[ref.Bucket] = append(open[ref.Bucket], ref.Key)
		}
	}
	var statements []statement
	for bucket, keys := range open {
		st := statement{take: func(key, value []byte) { t.known.set(bucket, key, value) }}
		if len(keys) == 1 {
			st.sql, st.args = "select key, value from "+string(bucket)+" where key = $1", []any{keys[0]}
		} else {
			st.sql, st.args = "select key, value from "+string(bucket)+" where key = any($1)", []any{keys}
		}
		statements = append(statements, st)
	}
	if statements != nil {
		t.session.ask(statements...)
	}
}

// Put remembers the write.
func (t *tx) Put(bucket store.Bucket, key, value []byte) error {
	if t.own == nil {
		return errReadOnly
	}
	if value == nil {
		value = []byte{} // nil means gone
	}
	t.own.set(bucket, key, bytes.Clone(value))
	return nil
}

// Delete remembers that the record is to go.
func (t *tx) Delete(bucket store.Bucket, key []byte) error {
	if t.own == nil {
		return errReadOnly
	}
	t.own.set(bucket, key, nil)
	return nil
}

// Tell passes a word on if the session commits.
func (t *tx) Tell(word string) { t.words = append(t.words, word) }

// Ahead has the next range fetch so many records at first.
func (t *tx) Ahead(records int) { t.ahead = records }

// Range reads page by page, since nothing else can be asked while rows are open.
func (t *tx) Range(bucket store.Bucket, prefix, from []byte, visit func(key, value []byte) bool) {
	start, end, size := prefix, after(prefix), min(cmp.Or(t.ahead, firstPage), maxPage)
	t.ahead = 0
	if bytes.Compare(from, start) > 0 {
		start = from
	}
	outer := t.page
	defer func() { t.page = outer }()
	for end == nil || bytes.Compare(start, end) < 0 {
		rows := t.rows(bucket, start, end, size)
		if t.session.failed != nil {
			return
		}
		last, more := end, len(rows) == size
		if more {
			last = append(bytes.Clone(rows[size-1].Key), 0)
		}
		rows = t.overlay(bucket, rows, start, last)
		t.page = &page{bucket: bucket, rows: rows}
		for _, r := range rows {
			if !visit(r.Key, r.value) {
				return
			}
		}
		if !more {
			return
		}
		start, size = last, min(4*size, maxPage)
	}
}

type row struct {
	store.Ref
	value []byte
}

// rows reads at most limit records, from start to before end; nil is no bound.
func (t *tx) rows(bucket store.Bucket, start, end []byte, limit int) []row {
	if start == nil {
		start = []byte{}
	}
	st := statement{sql: "select key, value from " + string(bucket) + " where key >= $1 order by key limit $2", args: []any{start, limit}}
	if end != nil {
		st.sql = "select key, value from " + string(bucket) + " where key >= $1 and key < $3 order by key limit $2"
		st.args = append(st.args, end)
	}
	var out []row
	st.take = func(key, value []byte) {
		out = append(out, row{Ref: store.Ref{Bucket: bucket, Key: key}, value: value})
	}
	t.session.ask(st)
	return out
}

// overlay puts in what was written and is not in the database yet.
func (t *tx) overlay(bucket store.Bucket, rows []row, start, end []byte) []row {
	if t.own == nil || len(t.own[bucket])+len(t.known[bucket]) == 0 {
		return rows
	}
	merged := map[string][]byte{}
	for _, r := range rows {
		merged[string(r.Key)] = r.value
	}
	for _, layer := range []values{t.known, t.own} {
		for key, value := range layer[bucket] {
			if bytes.Compare([]byte(key), start) >= 0 && (end == nil || bytes.Compare([]byte(key), end) < 0) {
				merged[key] = value
			}
		}
	}
	rows = rows[:0]
	for key, value := range merged {
		if value != nil {
			rows = append(rows, row{Ref: store.Ref{Bucket: bucket, Key: []byte(key)}, value: value})
		}
	}
	slices.SortFunc(rows, func(a, b row) int { return bytes.Compare(a.Key, b.Key) })
	return rows
}

// after gives the first key behind all with the prefix; nil if there is none.
func after(prefix []byte) []byte {
	out := bytes.Clone(prefix)
	for len(out) > 0 {
		if out[len(out)-1]++; out[len(out)-1] != 0 {
			return out
		}
		out = out[:len(out)-1]
	}
	return nil
}
