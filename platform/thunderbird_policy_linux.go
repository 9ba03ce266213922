package platform

// systemPolicies is the file for all installations of a machine; where it is, the
// installation's own does not count (EnterprisePoliciesParent.sys.mjs).
const systemPolicies = "/etc/thunderbird/policies/" + policyName

func (t thunderbird) policies() prefPolicies {
	paths := []string{systemPolicies}
	for _, folder := range t.libraries {
		paths = append(paths, distributed(folder))
	}
	return prefPoliciesOf(firstPolicies(paths...))
}
