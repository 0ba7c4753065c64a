"""Clusters: does the directory know each session, whatever fails?"""
