package postgres

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"smime-agent/server-stub/store"
)

// errUnnamed: a glance asked for something that it had not named.
var errUnnamed = errors.New("a glance asks for what it has not named")

// Glance is [store.Glance]: one statement, which needs no transaction around it
// to see one state.
func (s *Store) Glance(refs []store.Ref, groups []store.Group, read func(store.Tx) error) error {
	if err := s.usable(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), readTime)
	defer cancel()
	g := &glance{refs: refs, groups: groups, rows: make([][]row, len(refs)+len(groups))}
	turn := &session{ctx: ctx, pool: s.reads, fence: s.fence, patience: answerTime}
	turn.ask(g.statement())
	turn.end()
	if turn.failed != nil {
		return fmt.Errorf("read: %w", turn.failed)
	}
	return errors.Join(read(g), g.failed)
}

// glance is a [store.Tx] over what was named.
type glance struct {
	refs   []store.Ref
	groups []store.Group
	// rows are the records of each of refs, and then of each of groups.
	rows   [][]row
	failed error
}

// statement asks for all. The number before each key says whose it is.
func (g *glance) statement() statement {
	var parts []string
	var st statement
	add := func(bucket store.Bucket, condition string, args ...any) {
		for _, arg := range args {
			st.args = append(st.args, arg)
			condition = strings.Replace(condition, "?", fmt.Sprintf("$%d", len(st.args)), 1)
		}
		parts = append(parts, fmt.Sprintf("select '\\x%02x'::bytea || key, value from %s where %s", len(parts), bucket, condition))
	}
	for _, ref := range g.refs {
		add(ref.Bucket, "key = ?", ref.Key)
	}
	for _, group := range g.groups {
		start := append([]byte{}, group.Prefix...) // nil would be no value at all
		if end := after(group.Prefix); end != nil {
			add(group.Bucket, "key >= ? and key < ?", start, end)
		} else {
			add(group.Bucket, "key >= ?", start)
		}
	}
	st.sql = strings.Join(parts, " union all ")
	st.take = func(key, value []byte) {
		whose := int(key[0])
		g.rows[whose] = append(g.rows[whose], row{Ref: store.Ref{Key: key[1:]}, value: value})
	}
	return st
}

// Get gives what was named.
func (g *glance) Get(bucket store.Bucket, key []byte) []byte {
	for i, ref := range g.refs {
		if ref.Bucket == bucket && bytes.Equal(ref.Key, key) {
			if len(g.rows[i]) == 0 {
				return nil
			}
			return g.rows[i][0].value
		}
	}
	for i, group := range g.groups {
		if group.Bucket == bucket && bytes.HasPrefix(key, group.Prefix) {
			for _, r := range g.rows[len(g.refs)+i] {
				if bytes.Equal(r.Key, key) {
					return r.value
				}
			}
			return nil
		}
	}
	g.failed = fmt.Errorf("%w: %s", errUnnamed, bucket)
	return nil
}

// Range goes through a group that was named, or a part of it.
func (g *glance) Range(bucket store.Bucket, prefix, from []byte, visit func(key, value []byte) bool) {
	for i, group := range g.groups {
		if group.Bucket != bucket || !bytes.HasPrefix(prefix, group.Prefix) {
			continue
		}
		rows := g.rows[len(g.refs)+i]
		slices.SortFunc(rows, func(a, b row) int { return bytes.Compare(a.Key, b.Key) })
		for _, r := range rows {
			if bytes.HasPrefix(r.Key, prefix) && bytes.Compare(r.Key, from) >= 0 && !visit(r.Key, r.value) {
				return
			}
		}
		return
	}
	g.failed = fmt.Errorf("%w: %s", errUnnamed, bucket)
}

// Put is for updates.
func (g *glance) Put(store.Bucket, []byte, []byte) error { return errReadOnly }

// Delete is for updates.
func (g *glance) Delete(store.Bucket, []byte) error { return errReadOnly }
