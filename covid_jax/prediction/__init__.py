"""Scans in, lesion masks out: files of any format, many at once. Research use only.

``predict_scans.predict_scans`` with ``options.PredictOptions``; nothing is imported here, so that a
command line can know the options without loading a network.
"""
