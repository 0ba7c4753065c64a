"""HTTP server: do calls, limits, access control and telephones work through real servers?"""
