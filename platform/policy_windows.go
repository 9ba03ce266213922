package platform

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/windows"
	"golang.org/x/sys/windows/registry"
)

// Rights on registry keys (winnt.h).
const (
	mayQueryKey = registry.QUERY_VALUE | windows.GENERIC_READ | windows.GENERIC_ALL
	mayWriteKey = registry.SET_VALUE | registry.CREATE_SUB_KEY | registry.CREATE_LINK |
		windows.DELETE | windows.WRITE_DAC | windows.WRITE_OWNER | windows.GENERIC_WRITE | windows.GENERIC_ALL
)

// readPolicy reads a key below HKLM. A list is a REG_MULTI_SZ, or a key of its own
// with a text for each item, as the list element of administrative templates
// writes it.
func readPolicy(place string) (Policy, error) {
	p, err := policyAt(place)
	if err != nil {
		return Policy{}, fmt.Errorf("read policy %s: %w", place, err)
	}
	return p, nil
}

func policyAt(place string) (Policy, error) {
	path, ok := strings.CutPrefix(place, `HKLM\`)
	if !ok {
		return Policy{}, ErrUnsupported
	}
	k, sec, err := openPolicy(registry.LOCAL_MACHINE, path)
	if err != nil {
		return Policy{}, err
	}
	defer func() { _ = k.Close() }()
	p := Policy{Private: sec.others&mayQueryKey == 0}
	names, err := k.ReadValueNames(-1)
	if err != nil {
		return Policy{}, err
	}
	for _, name := range names {
		p.Values = append(p.Values, policyValue(k, name))
	}
	lists, err := k.ReadSubKeyNames(-1)
	if err != nil {
		return Policy{}, err
	}
	for _, name := range lists {
		list, err := policyList(k, name)
		if err != nil {
			return Policy{}, err
		}
		p.Values = append(p.Values, list)
	}
	slices.SortFunc(p.Values, func(a, b PolicyValue) int { return strings.Compare(a.Name, b.Name) })
	return p, nil
}

func openPolicy(parent registry.Key, path string) (registry.Key, guarding, error) {
	k, err := registry.OpenKey(parent, path,
		registry.QUERY_VALUE|registry.ENUMERATE_SUB_KEYS|registry.WOW64_64KEY|windows.READ_CONTROL)
	if errors.Is(err, registry.ErrNotExist) {
		return 0, guarding{}, fmt.Errorf("%w: %w", ErrNotFound, err)
	}
	if err != nil {
		return 0, guarding{}, denied(err)
	}
	sec, err := trustedKey(windows.Handle(k))
	if err != nil {
		return 0, guarding{}, errors.Join(err, k.Close())
	}
	return k, sec, nil
}

func trustedKey(k windows.Handle) (guarding, error) {
	me, err := self()
	if err != nil {
		return guarding{}, err
	}
	sec, err := me.inspect(k, windows.SE_REGISTRY_KEY)
	switch {
	case err != nil:
		return guarding{}, err
	case !me.trusts(sec.owner):
		return guarding{}, fmt.Errorf("%w: it belongs to %s", ErrDenied, sec.owner)
	case sec.others&mayWriteKey != 0:
		return guarding{}, fmt.Errorf("%w: other users can write it (rights 0x%x)", ErrDenied, uint32(sec.others))
	}
	return sec, nil
}

func policyValue(k registry.Key, name string) PolicyValue {
	v := PolicyValue{Name: name}
	_, kind, err := k.GetValue(name, nil)
	switch {
	case err != nil:
		v.Odd = true
	case kind == registry.SZ || kind == registry.EXPAND_SZ:
		v.Text, _, err = k.GetStringValue(name)
	case kind == registry.MULTI_SZ:
		v.Items, _, err = k.GetStringsValue(name)
		v.Items = append([]string{}, v.Items...)
	case kind == registry.DWORD || kind == registry.QWORD:
		var n uint64
		n, _, err = k.GetIntegerValue(name)
		v.Text, v.Number = strconv.FormatUint(n, 10), true
	default:
		v.Odd = true
	}
	v.Odd = v.Odd || err != nil
	return v
}

func policyList(parent registry.Key, name string) (PolicyValue, error) {
	k, _, err := openPolicy(parent, name)
	if err != nil {
		return PolicyValue{}, err
	}
	defer func() { _ = k.Close() }()
	names, err := k.ReadValueNames(-1)
	if err != nil {
		return PolicyValue{}, err
	}
	slices.SortFunc(names, byNumber)
	v := PolicyValue{Name: name, Items: []string{}}
	for _, n := range names {
		item := policyValue(k, n)
		v.Items = append(v.Items, item.Text)
		v.Odd = v.Odd || item.Odd || item.Items != nil
	}
	return v, nil
}

// byNumber puts "2" before "10": administrative templates number a list's items.
func byNumber(a, b string) int {
	if len(a) != len(b) {
		return len(a) - len(b)
	}
	return strings.Compare(a, b)
}
