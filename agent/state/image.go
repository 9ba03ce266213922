package state

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/fnv"
)

// bbolt trusts its file: a bad page makes it panic, sometimes in a goroutine of
// its own where nobody can recover. So the file is read and judged here, with
// every bound checked, before bbolt sees it. The format is bbolt's version 2
// (go.etcd.io/bbolt, internal/common), little endian on all our systems.
const (
	pageSize     = 4096
	pageHeader   = 16
	elementSize  = 16
	bucketHeader = 16
	boltMagic    = 0xED0CDAED
	boltVersion  = 2
	flagBranch   = 0x01
	flagLeaf     = 0x02
	noFreelist   = ^uint64(0)
	maxDepth     = 16
)

// entry is one key of one bucket as it lies in the file.
type entry struct {
	bucket, key string
	value       []byte
}

// image is a database file in memory.
type image struct {
	raw     []byte
	high    uint64 // first page that is not in use
	seen    map[uint64]bool
	entries []entry
}

// readImage gives all entries of a whole file, or says what is wrong with it.
func readImage(raw []byte) ([]entry, error) {
	if len(raw) < 4*pageSize {
		return nil, fmt.Errorf("file of %d bytes is too short", len(raw))
	}
	var root, txid uint64
	im := &image{raw: raw, seen: map[uint64]bool{}}
	for i := range 2 {
		m := raw[i*pageSize+pageHeader:][:64]
		if err := checkMeta(m); err != nil {
			// bbolt would go on with the other one, and so lose the last
			// transaction without a word.
			return nil, fmt.Errorf("meta page %d: %w", i, err)
		}
		if t := binary.LittleEndian.Uint64(m[48:]); i == 0 || t > txid {
			txid = t
			root = binary.LittleEndian.Uint64(m[16:])
			im.high = binary.LittleEndian.Uint64(m[40:])
			if f := binary.LittleEndian.Uint64(m[32:]); f != noFreelist {
				return nil, fmt.Errorf("meta page %d: free list at page %d, want none", i, f)
			}
		}
	}
	if im.high > uint64(len(raw))/pageSize {
		return nil, fmt.Errorf("file has %d pages, %d are in use", len(raw)/pageSize, im.high)
	}
	err := im.tree(root, "", bounds{}, 0)
	return im.entries, err
}

func checkMeta(m []byte) error {
	sum := fnv.New64a()
	_, _ = sum.Write(m[:56]) // a hash never fails
	switch {
	case binary.LittleEndian.Uint32(m) != boltMagic:
		return fmt.Errorf("magic number is %#x", binary.LittleEndian.Uint32(m))
	case binary.LittleEndian.Uint32(m[4:]) != boltVersion:
		return fmt.Errorf("format version is %d", binary.LittleEndian.Uint32(m[4:]))
	case binary.LittleEndian.Uint32(m[8:]) != pageSize:
		return fmt.Errorf("page size is %d", binary.LittleEndian.Uint32(m[8:]))
	case binary.LittleEndian.Uint64(m[56:]) != sum.Sum64():
		return fmt.Errorf("checksum does not match")
	}
	return nil
}

// bounds are the keys that a page may hold: from lo on, and less than hi.
type bounds struct{ lo, hi []byte }

func (b bounds) hold(key []byte) bool {
	return bytes.Compare(key, b.lo) >= 0 && (b.hi == nil || bytes.Compare(key, b.hi) < 0)
}

// tree reads the page id and all below it.
func (im *image) tree(id uint64, bucket string, b bounds, depth int) error {
	page, err := im.page(id)
	if err != nil {
		return err
	}
	switch flags := binary.LittleEndian.Uint16(page[8:]); {
	case depth > maxDepth:
		return fmt.Errorf("page %d: tree is too deep", id)
	case flags == flagLeaf:
		err = im.leaf(page, bucket, b)
	case flags == flagBranch:
		err = im.branch(page, bucket, b, depth)
	default:
		err = fmt.Errorf("kind %#x has no place in a tree", flags)
	}
	if err != nil {
		return fmt.Errorf("page %d: %w", id, err)
	}
	return nil
}

// page gives the page with its overflow, and sees to it that it is used once.
func (im *image) page(id uint64) ([]byte, error) {
	if id < 2 || id >= im.high {
		return nil, fmt.Errorf("page %d is outside the file's %d", id, im.high)
	}
	head := im.raw[id*pageSize:]
	overflow := uint64(binary.LittleEndian.Uint32(head[12:]))
	if got := binary.LittleEndian.Uint64(head); got != id {
		return nil, fmt.Errorf("page %d says that it is %d", id, got)
	}
	if id+overflow >= im.high {
		return nil, fmt.Errorf("page %d runs over the file's end", id)
	}
	for p := id; p <= id+overflow; p++ {
		if im.seen[p] {
			return nil, fmt.Errorf("page %d is used twice", p)
		}
		im.seen[p] = true
	}
	return head[:(overflow+1)*pageSize], nil
}

func (im *image) branch(page []byte, bucket string, b bounds, depth int) error {
	n := int(binary.LittleEndian.Uint16(page[10:]))
	if n == 0 {
		return fmt.Errorf("branch without children")
	}
	keys, err := elementKeys(page, n, 0)
	if err != nil {
		return err
	}
	for i, key := range keys {
		child := bounds{lo: key, hi: b.hi}
		if i+1 < n {
			child.hi = keys[i+1]
		}
		if !b.hold(key) || (i > 0 && bytes.Compare(keys[i-1], key) >= 0) {
			return fmt.Errorf("element %d is out of order", i)
		}
		id := binary.LittleEndian.Uint64(page[pageHeader+i*elementSize+8:])
		if err := im.tree(id, bucket, child, depth+1); err != nil {
			return err
		}
	}
	return nil
}

func (im *image) leaf(page []byte, bucket string, b bounds) error {
	n := int(binary.LittleEndian.Uint16(page[10:]))
	keys, err := elementKeys(page, n, 4)
	if err != nil {
		return err
	}
	for i, key := range keys {
		if !b.hold(key) || (i > 0 && bytes.Compare(keys[i-1], key) >= 0) {
			return fmt.Errorf("element %d is out of order", i)
		}
		at := pageHeader + i*elementSize
		from := at + int(binary.LittleEndian.Uint32(page[at+4:])) + len(key)
		size := int(binary.LittleEndian.Uint32(page[at+12:]))
		if size > len(page)-from {
			return fmt.Errorf("value of element %d runs over the page", i)
		}
		if err := im.element(binary.LittleEndian.Uint32(page[at:]), bucket, string(key), page[from:from+size]); err != nil {
			return fmt.Errorf("element %d: %w", i, err)
		}
	}
	return nil
}

// element files a value, or goes down into a bucket. The root holds nothing
// but buckets, and buckets hold nothing but values.
func (im *image) element(flags uint32, bucket, key string, value []byte) error {
	switch {
	case flags == 0 && bucket != "":
		im.entries = append(im.entries, entry{bucket, key, value})
		return nil
	case flags != 1 || bucket != "" || len(value) < bucketHeader:
		return fmt.Errorf("kind %#x is out of place", flags)
	}
	if root := binary.LittleEndian.Uint64(value); root != 0 {
		return im.tree(root, key, bounds{}, 0)
	}
	inline := value[bucketHeader:]
	if len(inline) < pageHeader || binary.LittleEndian.Uint16(inline[8:]) != flagLeaf {
		return fmt.Errorf("bucket %.20q has no page", key)
	}
	return im.leaf(inline, key, bounds{})
}

// elementKeys reads the keys of a page's elements; where is the offset of
// position and key size in an element.
func elementKeys(page []byte, n, where int) ([][]byte, error) {
	if n > (len(page)-pageHeader)/elementSize {
		return nil, fmt.Errorf("%d elements do not fit", n)
	}
	keys := make([][]byte, n)
	for i := range keys {
		at := pageHeader + i*elementSize
		pos := int(binary.LittleEndian.Uint32(page[at+where:]))
		size := int(binary.LittleEndian.Uint32(page[at+where+4:]))
		if size == 0 || pos > len(page)-at || size > len(page)-at-pos {
			return nil, fmt.Errorf("key of element %d runs over the page", i)
		}
		keys[i] = page[at+pos : at+pos+size]
	}
	return keys, nil
}
