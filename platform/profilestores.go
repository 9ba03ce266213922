//go:build windows || (darwin && cgo)

package platform

// profileStores gives the NSS databases of Thunderbird's profiles, where no other
// program shares one with it: those in use first.
func profileStores(home string, ask PINFunc) ([]Store, error) {
	used, unused, err := thunderbirdStores(home, false, ask)
	return append(used, unused...), err
}
