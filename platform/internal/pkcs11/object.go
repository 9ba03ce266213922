//go:build cgo || windows

package pkcs11

import "fmt"

// Object is a handle; it is good until the session ends.
type Object objectHandle

// findAtOnce is how many handles one C_FindObjects call asks for.
const findAtOnce = 64

func attribute(kind uint, value any) *attr { return newAttribute(kind, value) }

// find gives all objects that match.
func (s *Session) find(template ...*attr) ([]Object, error) {
	if err := s.c.FindObjectsInit(s.h, template); err != nil {
		return nil, fmt.Errorf("find objects: %w", err)
	}
	var found []Object
	for {
		handles, _, err := s.c.FindObjects(s.h, findAtOnce)
		if err != nil {
			_ = s.c.FindObjectsFinal(s.h) // the first error says more
			return nil, fmt.Errorf("find objects: %w", err)
		}
		if len(handles) == 0 {
			break
		}
		for _, h := range handles {
			found = append(found, Object(h))
		}
	}
	if err := s.c.FindObjectsFinal(s.h); err != nil {
		return nil, fmt.Errorf("find objects: %w", err)
	}
	return found, nil
}

// get reads one attribute. Attributes are read one by one because a single one
// that the token does not know fails the whole call.
func (s *Session) get(o Object, kind uint) ([]byte, error) {
	a, err := s.c.GetAttributeValue(s.h, objectHandle(o), []*attr{attribute(kind, nil)})
	if err != nil {
		return nil, fmt.Errorf("read attribute %#x: %w", kind, err)
	}
	return a[0].Value, nil
}

// getIfAny is for attributes that an object may well lack.
func (s *Session) getIfAny(o Object, kind uint) []byte {
	value, err := s.get(o, kind)
	if err != nil {
		return nil
	}
	return value
}

// getSome reads several attributes, nil for each that the object lacks. They are
// asked for in one call, which a module looks up at once; where it refuses that,
// they are read one by one.
func (s *Session) getSome(o Object, kinds ...uint) [][]byte {
	template := make([]*attr, 0, len(kinds))
	for _, kind := range kinds {
		template = append(template, attribute(kind, nil))
	}
	values := make([][]byte, len(kinds))
	found, err := s.c.GetAttributeValue(s.h, objectHandle(o), template)
	for i, kind := range kinds {
		if err == nil && i < len(found) && found[i].Type == kind {
			values[i] = found[i].Value
		} else {
			values[i] = s.getIfAny(o, kind)
		}
	}
	return values
}

func (s *Session) set(o Object, kind uint, value any) error {
	err := s.c.SetAttributeValue(s.h, objectHandle(o), []*attr{attribute(kind, value)})
	if err != nil {
		return fmt.Errorf("set attribute %#x: %w", kind, err)
	}
	return nil
}

// Destroy removes an object for good.
func (s *Session) Destroy(o Object) error {
	if err := s.c.DestroyObject(s.h, objectHandle(o)); err != nil {
		return fmt.Errorf("destroy object: %w", err)
	}
	return nil
}
