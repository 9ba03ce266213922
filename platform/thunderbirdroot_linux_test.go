package platform_test

const thunderbirdRoot = ".thunderbird"
