//go:build unix

package platform

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"howett.net/plist"
)

// maxPolicy bounds a file of managed policy, in bytes.
const maxPolicy = 64 << 10

// readPolicy reads a property list, XML or binary, as device management files
// managed preferences on macOS. Any other place is a folder of files.
func readPolicy(place string) (Policy, error) {
	if !strings.HasSuffix(place, ".plist") {
		return Policy{}, fmt.Errorf("%w: %s is no property list", ErrUnsupported, place)
	}
	data, private, err := readTrusted(place, maxPolicy)
	if err != nil {
		return Policy{}, fmt.Errorf("read policy: %w", err)
	}
	values, err := managedPreferences(data)
	if err != nil {
		return Policy{}, fmt.Errorf("read policy %s: %w", place, err)
	}
	return Policy{Values: values, Private: private}, nil
}

// managedPreferences leaves out what describes the profile itself: its keys
// begin with "Payload" (Apple, "Profile-Specific Payload Keys").
func managedPreferences(data []byte) ([]PolicyValue, error) {
	var all map[string]any
	format, err := plist.Unmarshal(data, &all)
	// The library also reads old forms of text, in which an empty file is an empty
	// dictionary: policy would be lifted by losing it.
	if err != nil || format != plist.XMLFormat && format != plist.BinaryFormat {
		// The parser's words may repeat the text, and there may be a secret in it.
		return nil, errors.New("it is not a property list with a dictionary")
	}
	var values []PolicyValue
	for name, value := range all {
		if !strings.HasPrefix(name, "Payload") {
			values = append(values, managedValue(name, value))
		}
	}
	slices.SortFunc(values, func(a, b PolicyValue) int { return strings.Compare(a.Name, b.Name) })
	return values, nil
}

func managedValue(name string, value any) PolicyValue {
	v := PolicyValue{Name: name}
	list, isList := value.([]any)
	if !isList {
		var ok bool
		v.Text, v.Number, ok = managedScalar(value)
		v.Odd = !ok
		return v
	}
	v.Items = []string{}
	for _, item := range list {
		text, _, ok := managedScalar(item)
		v.Items, v.Odd = append(v.Items, text), v.Odd || !ok
	}
	return v
}

func managedScalar(value any) (text string, number, ok bool) {
	switch v := value.(type) {
	case string:
		return v, false, true
	case bool:
		return strconv.FormatBool(v), false, true
	case uint64:
		return strconv.FormatUint(v, 10), true, true
	case int64:
		return strconv.FormatInt(v, 10), true, true
	}
	return "", false, false
}
